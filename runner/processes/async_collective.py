"""Carry the contributions of a collective method between processes, while the method goes on computing.

A transfer is started by the thread that computes, so that all ranks start theirs in the same order, and awaited by a
thread of its own, which notes when it arrived. A slower network than the machine's can be acted there: the transfer's
seconds are slept after the contributions of all ranks have come together, on top of what the real network took.

What the process group cannot carry from GPU to GPU travels through page-locked CPU memory.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from runner.processes.rendezvous import comm_device


class Transfer(Protocol):
    """What has been started on the process group, as `torch.distributed.Work`."""

    def wait(self) -> object:
        """Wait for its end."""
        ...


class PendingCollective:
    """A combination on its way.

    Args:
        vectors: where the ranks' sum (1, n) or their vectors by rank (M, n) will be.
        work: the transfer; None if it has arrived.
        device: where the vectors are wanted; None if they are there already.
    """

    def __init__(self, vectors: Tensor, work: Transfer | None, device: torch.device | None = None) -> None:
        self.vectors = vectors
        self.work = work
        self.device = device
        self.begin = time.perf_counter()
        self.arrival: Future[float] | None = None
        self._end: float | None = None

    def wait(self) -> Tensor:
        """Wait for the combination.

        Raises:
            RuntimeError: another rank is gone, or silent for too long.
        """
        # What counts is when the combination arrived, not when this call asks: computing hid the time in between.
        # A checkpoint waits for what travels, and so does the step that applies it: a second call finds the first one's
        # time.
        if self.arrival is not None:
            self._end = self.arrival.result()
        elif self.work is not None and self._end is None:
            self.work.wait()
            self._end = time.perf_counter()
        if self.device is not None:
            # The host does not wait for this copy: whatever reads the vectors on the GPU is queued behind it.
            self.vectors = self.vectors.to(self.device, non_blocking=True)
            self.device = None
        return self.vectors

    def seconds(self) -> float:
        """Return how long it travelled, 0 if it came from a checkpoint; call this after `wait`."""
        return 0.0 if self._end is None else self._end - self.begin


class AsyncCollective:
    """Combine vectors of all ranks of the default process group.

    Args:
        combine: "mean" sums them (the receiver divides), "gather" stacks them.
        world: number of ranks M.
        background: whether combinations travel while this rank computes.
        extra_seconds: seconds that each transfer takes in addition to the real network's.
    """

    def __init__(
        self, combine: Literal["mean", "gather"], world: int, *, background: bool = False, extra_seconds: float = 0.0
    ) -> None:
        self.combine = combine
        self.world = world
        self.extra_seconds = extra_seconds
        self._queue: queue.SimpleQueue[PendingCollective] | None = None
        # Without either, the caller waits right after it has started: there is no computing beside which a thread could
        # look on.
        if background or extra_seconds:
            self._queue = queue.SimpleQueue()
            # One thread with a queue keeps the order: combinations end as they were started. The thread is a daemon,
            # because a run that ends while a peer is stuck must not wait for that peer here.
            threading.Thread(
                target=_wait, args=(self._queue, extra_seconds), daemon=True, name="async collective"
            ).start()

    def start(self, vector: Tensor) -> PendingCollective:
        """Start combining a contiguous tensor, of shape (n,) or any other.

        The caller gives the tensor away: the sum is made in its memory, unless that is a GPU's and the group is gloo.
        """
        wanted = None
        if vector.is_cuda and comm_device(vector.device).type == "cpu":
            wanted = vector.device
            # The host waits for this copy, because the transfer reads the values from CPU memory at once.
            vector = page_locked(vector.shape, vector.dtype).copy_(vector)
        vectors, work = self._transfer(vector, locked=wanted is not None)
        pending = PendingCollective(vectors, work, wanted)
        if self._queue is not None and work is not None:
            # Before it is queued: the thread looks for it as soon as it gets hold of the combination.
            pending.arrival = Future()
            self._queue.put(pending)
        return pending

    def _transfer(self, vector: Tensor, locked: bool) -> tuple[Tensor, Transfer | None]:
        """Start the transfer; return where the vectors will be, and what to wait for, None if they are there.

        Args:
            vector: of this rank.
            locked: whether what arrives is wanted in page-locked memory.
        """
        if self.combine == "gather":
            # Room of its own for each gathering: an earlier one may still travel.
            vectors = _rows(self.world, vector, locked)
            return vectors, dist.all_gather_into_tensor(vectors, vector[None], async_op=True)
        # One row: whoever receives reads a sum and gathered vectors alike.
        return vector[None], dist.all_reduce(vector, async_op=True)


class NeighbourExchange(AsyncCollective):
    """Exchange vectors with some ranks of the default process group, which do the same with this one.

    Args:
        group: the ranks, ascending, this one too.
        rank: this one.
        background: see `AsyncCollective`; likewise `extra_seconds`.
    """

    def __init__(
        self, group: Sequence[int], rank: int, *, background: bool = False, extra_seconds: float = 0.0
    ) -> None:
        super().__init__("gather", len(group), background=background, extra_seconds=extra_seconds)
        self.group = group
        self.rank = rank

    def _transfer(self, vector: Tensor, locked: bool) -> tuple[Tensor, Transfer | None]:
        """See `AsyncCollective`: a row for each of the group."""
        vectors = _rows(len(self.group), vector, locked)
        vectors[self.group.index(self.rank)] = vector
        messages = list[dist.P2POp]()
        for row, other in zip(vectors, self.group, strict=True):
            if other != self.rank:
                messages += [dist.P2POp(dist.isend, vector, other), dist.P2POp(dist.irecv, row, other)]
        # A rank alone has nobody to send to, and PyTorch takes no empty batch.
        return vectors, _Exchange(dist.batch_isend_irecv(messages), vector) if messages else None


class _Exchange:
    """Messages on their way to and from neighbours.

    Args:
        works: the messages.
        vector: what is sent; kept, since gloo reads it until the slowest neighbour asks for it.
    """

    def __init__(self, works: Sequence[Transfer], vector: Tensor) -> None:
        self._works = works
        self._vector = vector

    def wait(self) -> None:
        """See `Transfer.wait`."""
        for work in self._works:
            work.wait()


def page_locked(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return CPU memory that a GPU can copy from and to directly."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def _rows(count: int, like: Tensor, locked: bool) -> Tensor:
    """Return room for so many vectors."""
    shape = torch.Size((count, *like.shape))
    return page_locked(shape, like.dtype) if locked else like.new_empty(shape)


def _wait(started: queue.SimpleQueue[PendingCollective], extra_seconds: float) -> None:
    """Note when each combination arrives or why it fails, for `PendingCollective.wait` in the computing thread."""
    stream: torch.cuda.Stream | None = None
    while True:
        pending = started.get()
        assert pending.work is not None and pending.arrival is not None
        try:
            if pending.vectors.is_cuda:
                # This thread has a stream of its own, because on the default stream it would wait for the gradients
                # too. It keeps that one stream, because PyTorch has only 32 and would hand out one that others use.
                stream = stream or torch.cuda.Stream(pending.vectors.device)
                with torch.cuda.stream(stream):
                    pending.work.wait()
                    torch.cuda.current_stream().synchronize()
            else:
                pending.work.wait()
            # Here, not in the thread that computes: an acted network delays arrivals, not gradients.
            time.sleep(extra_seconds)
        except RuntimeError as error:
            # Raised by `wait` in the thread that computes: an error in this one would end this thread, and leave the
            # other waiting.
            pending.arrival.set_exception(error)
        else:
            pending.arrival.set_result(time.perf_counter())
        # Otherwise this thread would keep these vectors in memory until the next combination comes.
        del pending
