"""A method on shared memory, on real processes of one machine: all map one file, and nobody locks anything.

To the rest of the runner this is a parameter server whose messages carry no weights: a pull hands out a batch and its
learning rate, and by the push the worker has already written. So batches, lost workers, barriers, evaluation and
checkpoints are those of `runner.processes.server`. Nobody knows in which order the processes read and write, so such a
run cannot be recorded, and does not repeat.
"""

# torch's type stubs do not know the stores that torch.distributed hands on.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from algorithms.base import Batch, Fields, Layout, Message, Oracle, ParameterServer, Round, Step, Worker
from algorithms.shared_memory import SharedMemory
from runner.config.errors import InputError
from runner.loop.batches import coordinate_generator
from runner.loop.schedule import Rate
from runner.processes import leftovers

KEY = "shared memory"
"""The store's key under which ranks find the name of the file."""


def mapped(path: str, n: int) -> Tensor:
    """Map a file of float32 numbers, so that what one process writes all others read.

    No lock guards it: the methods are made for what happens then. An aligned float32 is written whole, so a reader
    finds old and new coordinates side by side, but no torn number.
    """
    return torch.from_file(path, shared=True, size=n, dtype=torch.float32)


def _memory(nbytes: int) -> Path:
    """Return a new file for the shared weights.

    Raises:
        InputError: there is not so much memory for files.
    """
    try:
        return leftovers.make_file(nbytes)
    except OSError as error:
        free = shutil.disk_usage(leftovers.MEMORY).free if leftovers.MEMORY.is_dir() else 0
        what = (
            f"the shared weights need {nbytes / 1e6:.1f} MB in {leftovers.MEMORY}, which has {free / 1e6:.1f} MB free"
        )
        larger = f"a larger one (mount -o remount,size=1G {leftovers.MEMORY}; docker run --shm-size=1g)"
        reason = error.strerror or error
        raise InputError.of("cluster", "processes", f"{what} ({reason})", f"{larger}, or cluster=simulated") from error


class MemoryServer(ParameterServer):
    """The owner of the shared weights; it hands out batches and never writes a weight itself.

    Args:
        method: the method, unstarted.
        store: where the ranks meet.
        samples: size n of the training set.
    """

    # Workers write to the shared weights whenever they like: the server lets them finish what they hold before it
    # evaluates or saves.
    at_rest = True

    def __init__(self, method: SharedMemory, store: dist.Store, samples: int) -> None:
        self.method = method
        self.store = store
        self.samples = samples
        self.rate: Callable[[], Rate] = lambda: Rate(0.0, 1.0)
        # The method's own, so that to the server's loop its barriers are those of any method.
        self.barrier_every, self.barrier_from = method.barrier_every, method.barrier_from
        self.barrier_cost = method.barrier_cost  # pyright: ignore[reportAttributeAccessIssue] (this method's)
        self._coming: set[int] = set()
        self._path: Path | None = None

    def start(self, w: Tensor, workers: int, compiled: bool = False) -> None:
        """Create the file, with `w` in it, and tell the workers where it is."""
        self._path, self._coming = _memory(w.element_size() * w.numel()), set(range(workers))
        self.w, self.workers = mapped(str(self._path), w.numel()).copy_(w), workers
        self.method.start(self.w, workers)
        # Last: whoever reads the name maps the file at once.
        self.store.set(KEY, str(self._path))

    def layout(self, n: int) -> Layout:
        """Return the learning rate down, nothing up."""
        return Layout(pull={"rate": 2}, push={})

    def pull(self, worker: int) -> Message:
        """Send what a worker needs to know of the schedule."""
        rate = self.rate()
        return {"rate": torch.tensor([rate.lr, rate.decay])}

    def push(self, worker: int, message: Message, step: Step) -> None:
        """Note that a worker has written, and so has mapped the file; its name goes once all have."""
        self._coming.discard(worker)
        if not self._coming:
            self.close()

    def close(self) -> None:
        """Remove the file's name; the memory goes with the last process that has mapped it."""
        if self._path is not None:
            leftovers.discard(self._path)
            self._path = None

    def evaluations(self, updates: int) -> float:
        """See `SharedMemory.evaluations`."""
        return self.method.evaluations(updates)

    def rounds(self, n: int) -> list[Round]:
        """Return two rounds: shards' gradients at the shared weights come up, then the snapshot goes down."""
        if self.barrier_every is None:
            return []
        return [Round({}, {"sum": n}), Round(self.method.snapshots(n), {})]

    def broadcast(self, number: int) -> Message:
        """Return nothing in round 0, as the weights are there to be read; in round 1 the snapshot's state."""
        return _rest(self.method) if number else {}

    def collect(self, number: int, total: Message) -> None:
        """Take the snapshot."""
        self.method.snapshot(total["sum"].div_(self.samples))

    def restoring(self, n: int) -> Fields:
        """Return the sizes of all state but the shared weights."""
        return self.method.snapshots(n)

    def restore(self, worker: int) -> Message:
        """Return all state but the shared weights."""
        return _rest(self.method)

    def worker(self, worker: int) -> Worker:
        """Raise NotImplementedError: a worker's half is made in the worker's own process."""
        raise NotImplementedError("MemoryWorker is made by its own process")

    def state(self) -> Message:
        """See `SharedMemory.state`."""
        return self.method.state()

    def solution(self) -> Tensor:
        """Return the shared weights as they stand, while others write."""
        return self.method.solution()


class MemoryWorker(Worker):
    """One worker, which reads the shared vector, computes, and writes.

    Args:
        method: the method, unstarted: this process's own instance.
        store: where the ranks meet.
        n: number of weights.
        workers: number of workers M.
        seed: the run's seed, for the coordinates.
    """

    at_rest = True

    def __init__(self, method: SharedMemory, store: dist.Store, *, n: int, workers: int, seed: int) -> None:
        self.method = method
        self.seed = seed
        # `get` waits for the key, and so for the file.
        method.start(mapped(store.get(KEY).decode(), n), workers)
        self.read = torch.empty(n)

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        """Read ŵ, compute v, write its coordinates."""
        method, n = self.method, self.read.numel()
        self.read.copy_(method.w)
        v = method.direction(oracle, self.read, batch)
        generator = coordinate_generator(self.seed, batch.number)
        coordinates = method.coordinates(n, generator)
        lr, decay = pulled["rate"].tolist()
        where = slice(0, n) if coordinates is None else coordinates
        method.write(where, v, method.rate(batch, Step(lr=lr, decay=decay)))
        return {}

    def receive(self, number: int, message: Message) -> None:
        """Take in the snapshot."""
        self.restore(message)

    def answer(self, oracle: Oracle, number: int, shard: Batch) -> Message:
        """Return the sum of a shard's gradients at the shared weights, which nobody writes to meanwhile."""
        return {"sum": oracle.gradient_sum(self.method.w, shard)}

    def restore(self, message: Message) -> None:
        """Take in all state but the shared weights."""
        rest = _rest(self.method)
        for name, tensor in message.items():
            rest[name].copy_(tensor)


def _rest(method: SharedMemory) -> Message:
    return {name: tensor for name, tensor in method.state().items() if name != "w"}
