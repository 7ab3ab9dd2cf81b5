"""Compute processes of a simulated run, and who of them does what when.

While a virtual clock runs, what a worker computes on is known from its pull on: its task can be done at once, by any
process, and its result be taken when the clock comes to it. Tasks are begun in the order in which their results will be
needed. What is made of the results, and when, does not depend on the processes.

Results wait in places of the shared memory, one more than there are processes. A task gets its place when it begins.
Its result may be needed late, by a slow worker, while the one that is needed next is not begun, or not even submitted:
what an event brings may come before all that is in flight. So the last free place is given away only while the run
waits for a result, to that one, or to another if that one has its place: it will free it. Then the run never waits for
a place that only it can free.
"""

from __future__ import annotations

import logging
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, NamedTuple

from torch import Tensor

from algorithms.base import Fields, Message
from runner.config.errors import InputError
from runner.config.forkserver import forkserver_context
from runner.loop.stop import PeerLost
from runner.simulated.arena import Arena, NotShareable, lay_out
from runner.simulated.compute_process import (
    DONE,
    FAILED,
    STATISTICS,
    MakeTasks,
    Task,
    compute_main,
    largest_result,
    result_fields,
    unpack_counts,
    unpack_span,
)
from runner.simulated.transfers import InPlace, Transfers

log = logging.getLogger("dcrun")

READY = 0
"""The call, known to all `Tasks`, that does nothing: its answer says that a process is there."""


@dataclass(frozen=True)
class PoolOptions:
    """What a pool is made of besides its memory.

    Attributes:
        count: number of processes.
        make_tasks: see `MakeTasks`.
        plain: the composed configuration.
        transfers: of the run's own process.
        chosen: whether the run chose the number, and may go on without them.
    """

    count: int
    make_tasks: MakeTasks
    plain: dict[str, Any]
    transfers: Transfers = field(default_factory=InPlace)
    chosen: bool = False

    def give_up(self, error: NotShareable) -> None:
        """Learn that the method's state is not to be shared, so the run's own process has to compute.

        Raises:
            NotShareable: the user asked for compute processes.
        """
        if not self.chosen:
            raise error
        log.info("run.compute_processes=auto: 1 (%s)", error)


class Result(NamedTuple):
    """What came of a task; valid until it is released.

    Attributes:
        message: the result's own tensors; None if there are none.
        statistics: batch-norm statistics of the batch (k,).
        counts: sums of losses, errors and samples, in the order in which they were counted.
    """

    message: Message | None
    statistics: Tensor
    counts: list[tuple[float, float, float]]

    def count(self, totals: Tensor) -> None:
        """Add what was counted to a run's totals (3,), sum by sum, as one process would have."""
        for sums in self.counts:
            # As arguments of kernels: a tensor of them would be copied to a GPU, for which the host would wait.
            for total, more in zip(totals.unbind(), sums, strict=True):
                total += more


@dataclass
class _Pending:
    """A task between its submission and its release.

    Attributes:
        task: what is to be done.
        only: the process that must do it; None for any.
        place: of the result; None until it begins.
        answer: what the process answered; None until then.
        dropped: whether nobody wants the result any more.
    """

    task: Task
    only: int | None
    place: int | None = None
    answer: bytes | None = None
    dropped: bool = False


@dataclass
class _Process:
    """A compute process as its run sees it.

    Attributes:
        process: of the system.
        pipe: takes tasks, brings answers.
        doing: the submitted task that it is at, if any.
        owed: answers that it owes to `tell`.
    """

    process: Any
    pipe: connection.Connection
    doing: _Pending | None = None
    owed: int = field(default=0)


def place_results(options: PoolOptions, fields: Sequence[Fields], statistics: int, offset: int) -> list[int]:
    """Return the first bytes of the places of results, one more than there are processes, and then where they end.

    Args:
        options: of the pool.
        fields: the tensors of each kind of result.
        statistics: number k of batch-norm statistics, which lie beside them.
        offset: where the first place begins.
    """
    size = largest_result(fields, statistics)
    return [offset + number * size for number in range(options.count + 2)]


class ComputePool:
    """Compute processes, each with its own replica.

    Args:
        options: how many, and what they are made of.
        arena: the shared memory.
        places: what is where in it, handed to `make_tasks`.
        results: first bytes of the places of results, see `place_results`.
        statistics: number k of batch-norm statistics.

    Attributes:
        order: returns the keys of submitted tasks in the order in which their results will be needed; those that it
            leaves out come last, in the order of their submission.
    """

    def __init__(
        self,
        options: PoolOptions,
        *,
        arena: Arena,
        places: Any,
        results: Sequence[int],
        statistics: int,
    ) -> None:
        self.arena = arena
        self.transfers = options.transfers
        self.transfers.attach(arena)
        self.statistics = statistics
        self.order: Callable[[], Iterable[int]] = lambda: ()
        self._free = list(results)
        self._pending: dict[int, _Pending] = {}
        # Whose result is waited for, or being taken in: before all others in the order.
        self._wanted: int | None = None
        self._processes: list[_Process] = []
        context = forkserver_context(options.make_tasks.__module__)
        for number in range(options.count):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=compute_main,
                args=(theirs, options.make_tasks, options.plain, number, arena, places),
                name=f"compute process {number}",
                # Ended with this process, in case nobody closes the pool.
                daemon=True,
            )
            process.start()
            # The other end is that process' alone from here on: its death ends the pipe.
            theirs.close()
            self._processes.append(_Process(process, ours))
            log.info("%s is pid %s", process.name, process.pid)

    def __len__(self) -> int:
        return len(self._processes)

    def wait_ready(self) -> None:
        """Wait until all processes are built.

        Raises:
            PeerLost: one died.
            InputError: one cannot be built.
        """
        self.tell(Task(READY))

    def submit(self, key: int, task: Task, only: int | None = None) -> None:
        """Have a task done, by process `only` if one is given; `key` names it until it is released.

        It begins when a result is waited for or released, or with `begin`: if many are submitted at once, the first of
        them may be the one that is needed last, and its result would keep a place, and its process idle, until then.
        """
        assert key not in self._pending
        self._pending[key] = _Pending(task, only)

    def begin(self) -> None:
        """Have idle processes begin what was submitted, while the run does something else."""
        self._take(0.0)

    def result(self, key: int, fields: Fields) -> Result:
        """Wait for a result, whose tensors are `fields`.

        Raises:
            PeerLost: a process died.
            InputError: the method sent what it must not.
            RuntimeError: the method failed in its process.
        """
        pending, self._wanted = self._pending[key], key
        # Also if it is there: what was submitted since begins before the run takes this one in.
        self._take(0.0)
        while pending.answer is None:
            self._take(None)
        assert pending.place is not None
        tensors = self.arena.tensors(lay_out(result_fields(fields, self.statistics), pending.place))
        there = pending.answer[:1] == DONE
        brought = self.transfers.fetch(tensors if there else {STATISTICS: tensors[STATISTICS]})
        statistics = brought.pop(STATISTICS)
        return Result(brought if there else None, statistics, unpack_counts(pending.answer))

    def release(self, key: int) -> None:
        """Give the place of a result, which was taken in, to others."""
        place, self._wanted = self._pending.pop(key).place, None
        assert place is not None
        # What was taken in may still be on its way from the place.
        self.transfers.finish()
        self._free.append(place)
        self._take(0.0)

    def drop(self, key: int) -> None:
        """Forget a task, done or not; one that is not known is forgotten already."""
        pending = self._pending.pop(key, None)
        if pending is None or pending.place is None:
            return
        if pending.answer is None:
            # Its process is at it: the place is free when it has answered.
            pending.dropped = True
        else:
            self._free.append(pending.place)

    def tell(self, task: Task, only: int | None = None) -> None:
        """Have all processes, or process `only`, do a task without a result, and wait for them."""
        told = self._processes if only is None else [self._processes[only]]
        for process in told:
            self._send(process, task)
            process.owed += 1
        while any(process.owed for process in told):
            self._take(None)

    def worked(self, process: int, begin: float, end: float) -> None:
        """Learn when a process was at a task, by `time.monotonic`; `run.profile` listens here."""

    def close(self) -> None:
        """End the processes, whatever they are at: what they have is in this process too, or of no use."""
        for process in self._processes:
            process.pipe.close()
            process.process.kill()
        for process in self._processes:
            process.process.join()
        self._processes.clear()
        self.transfers.close()

    def _take(self, seconds: float | None) -> None:
        """Take the answers that are there, after up to so many seconds of waiting for one, and begin what can be."""
        self._begin()
        busy: dict[Any, _Process] = {p.pipe: p for p in self._processes if p.doing is not None or p.owed}
        # By the argument above somebody is at a task whenever a result is waited for.
        assert busy or seconds is not None
        for pipe in connection.wait(list(busy), seconds) if busy else ():
            self._take_answer(busy[pipe])
        self._begin()

    def _take_answer(self, process: _Process) -> None:
        try:
            answer = process.pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise PeerLost(_death(process)) from error
        if answer[:1] == FAILED:
            wrong, told = pickle.loads(answer[1:])
            raise InputError(told) if wrong else RuntimeError(f"{process.process.name} failed:\n{told}")
        # In the order of what it was sent: a task that it was at before it was told something is answered first.
        if process.doing is None:
            process.owed -= 1
            return
        done, process.doing = process.doing, None
        done.answer = answer
        self.worked(self._processes.index(process), *unpack_span(answer))
        if done.dropped:
            assert done.place is not None
            self._free.append(done.place)

    def _begin(self) -> None:
        """Give idle processes what is needed first of what they may do."""
        idle = [number for number, process in enumerate(self._processes) if process.doing is None and not process.owed]
        if not idle or not self._free:
            return
        # Whether the run waits for a result that has its place, and will free it before anything else is submitted.
        served = False
        for position, pending in enumerate(self._in_order()):
            first = self._wanted is not None and position == 0
            if not idle or len(self._free) < (1 if served or first else 2):
                return
            chosen = next((number for number in idle if pending.only in (None, number)), None)
            if pending.place is None and chosen is not None:
                idle.remove(chosen)
                pending.place = self._free.pop()
                self._processes[chosen].doing = pending
                self._send(self._processes[chosen], pending.task._replace(place=pending.place))
            if first:
                served = pending.place is not None

    def _in_order(self) -> Iterator[_Pending]:
        seen = set()
        for key in (*(() if self._wanted is None else (self._wanted,)), *self.order(), *self._pending):
            if key in self._pending and key not in seen:
                seen.add(key)
                yield self._pending[key]

    def _send(self, process: _Process, task: Task) -> None:
        try:
            process.pipe.send_bytes(task.pack())
        except OSError as error:
            raise PeerLost(_death(process)) from error


def _death(process: _Process) -> str:
    """Return how a process ended."""
    process.process.join(1.0)
    code = process.process.exitcode
    what = f"died with exit code {code}"
    if code is None:
        what = "closed its pipe"
    elif code < 0:
        what = f"was killed by {signal.Signals(-code).name}"
    return f"{process.process.name} (pid {process.process.pid}) {what}"
