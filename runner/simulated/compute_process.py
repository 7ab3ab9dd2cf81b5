"""A compute process: it does one task of a simulated worker after the other, and hands over what comes of each.

A task comes as some numbers, never pickled: which call of the method it is, on which batch, and where in the shared
memory the result is to be put. What the call reads, as weights that a worker pulled, lies in the shared memory already.
The answer is a few bytes too: what was counted meanwhile, sum by sum, so that whoever adds the sums up in the order of
events gets the bits of a run in one process. It leaves when the result is complete: a GPU may still be copying it when
the call has returned.
"""

from __future__ import annotations

import logging
import pickle
import signal
import struct
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from algorithms.base import Fields, Message
from runner.config import signals
from runner.config.errors import InputError
from runner.config.process_settings import set_process
from runner.gradients.oracle import NetworkOracle
from runner.simulated.arena import ALIGNMENT, Arena, lay_out
from runner.simulated.transfers import Transfers

STATISTICS = "batch-norm statistics"
"""Name under which the statistics of the batch are beside a result's own tensors."""
NOWHERE = -1
"""The place of the result of a task that has none."""
DONE, EMPTY, FAILED = b"D", b"E", b"F"
"""First byte of an answer: the result is in its place; there is none; an exception, pickled, follows."""
_HEAD = struct.Struct("<4q")
_COUNT = struct.Struct("<3d")
_SPAN = struct.Struct("<2d")
# Where the counts of an answer begin: after its first byte and its span.
_COUNTS = 1 + _SPAN.size


class Task(NamedTuple):
    """What a compute process is asked to do.

    Attributes:
        call: number of the call, of those that the process' `Tasks` know.
        numbers: what says on what, as a worker and a batch.
        reals: other arguments, as a learning rate.
        place: first byte of the result in the shared memory, or `NOWHERE`.
    """

    call: int
    numbers: Sequence[int] = ()
    reals: Sequence[float] = ()
    place: int = NOWHERE

    def pack(self) -> bytes:
        """Return the task as bytes."""
        head = _HEAD.pack(self.call, self.place, len(self.numbers), len(self.reals))
        return head + struct.pack(f"<{len(self.numbers)}q{len(self.reals)}d", *self.numbers, *self.reals)

    @staticmethod
    def unpack(raw: bytes) -> Task:
        """Return the task that `pack` made these bytes of."""
        call, place, numbers, reals = _HEAD.unpack_from(raw)
        values = struct.unpack_from(f"<{numbers}q{reals}d", raw, _HEAD.size)
        return Task(call, values[:numbers], values[numbers:], place)


class Tasks(Protocol):
    """What a compute process can do, for one kind of methods.

    Attributes:
        oracle: gradients, of this process' own replica.
        transfers: of this process, to and from the shared memory.
    """

    oracle: NetworkOracle
    transfers: Transfers

    def perform(self, task: Task) -> Message | None:
        """Do a task and return its result, which may be borrowed until the next one; None if it has none."""
        ...

    def fields(self, call: int, numbers: Sequence[int]) -> Fields:
        """Return the tensors of a task's result."""
        ...


MakeTasks = Callable[[dict[str, Any], int, Arena, Any], Tasks]
"""Build what a compute process needs: from the run's configuration, its number, the shared memory, and what is where.

A process gets it by name: it must be a function of a module, not a closure.
"""


def result_fields(tasks_fields: Fields, statistics: int) -> Fields:
    """Return the tensors that are put in a result's place: its own, and `statistics` batch-norm statistics."""
    return {STATISTICS: statistics, **tasks_fields}


def largest_result(fields: Sequence[Fields], statistics: int) -> int:
    """Return the bytes of a place that any of these results fits in."""
    ends = [place.end for each in fields for place in lay_out(result_fields(each, statistics), 0).values()]
    return max([ALIGNMENT, *ends])


def unpack_counts(answer: bytes) -> list[tuple[float, float, float]]:
    """Return the sums of losses, errors and samples that an answer brings, in the order in which they were counted."""
    return list(_COUNT.iter_unpack(answer[_COUNTS:]))


def unpack_span(answer: bytes) -> tuple[float, float]:
    """Return when a process was at the task that it answers: begin and end by `time.monotonic`, the same for all."""
    begin, end = _SPAN.unpack_from(answer, 1)
    return begin, end


def compute_main(
    pipe: Connection, make_tasks: MakeTasks, plain: dict[str, Any], number: int, arena: Arena, places: Any
) -> None:
    """Do tasks until the pipe ends; the target of a spawned process.

    Args:
        pipe: brings tasks, takes answers.
        make_tasks: see `MakeTasks`.
        plain: the composed configuration.
        number: of this process, from 0: says which GPU is its own.
        arena: the shared memory.
        places: what is where in it, handed to `make_tasks`.
    """
    # The run's own process acts on signals, and ends this one.
    signals.ignore()
    set_process()
    signals.send_at_parents_end(signal.SIGKILL)
    # What is to be said about the run its own process has said.
    logging.disable(logging.WARNING)
    do_tasks(pipe, make_tasks, plain, number, arena, places)


def do_tasks(
    pipe: Connection, make_tasks: MakeTasks, plain: dict[str, Any], number: int, arena: Arena, places: Any
) -> None:
    """Do tasks until the pipe ends; the arguments are those of `compute_main`."""
    try:
        tasks = make_tasks(plain, number, arena, places)
        with closing(tasks.transfers):
            while True:
                pipe.send_bytes(_done(tasks, Task.unpack(pipe.recv_bytes()), arena))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The run is over, or its process is gone.
        return
    except Exception as error:  # noqa: BLE001 (handed on whole, to the process that says what went wrong)
        # Another process may have failed first, which ended the run.
        with suppress(OSError):
            pipe.send_bytes(FAILED + pickle.dumps(_told(error)))


def _done(tasks: Tasks, task: Task, arena: Arena) -> bytes:
    """Do a task, put its result in its place, and return the answer."""
    begin, oracle = time.monotonic(), tasks.oracle
    oracle.counts = counts = list[tuple[Any, Any, Any]]()
    statistics, result = oracle.replica.statistics, Message()
    if task.place != NOWHERE:
        fields = result_fields(tasks.fields(task.call, task.numbers), statistics.numel())
        result = arena.tensors(lay_out(fields, task.place, oracle.replica.weights.dtype))
        _collect_in(result, tasks)
    message = tasks.perform(task)
    if result:
        # Also without a message: a local step that sends nothing has seen a batch.
        tasks.transfers.share({STATISTICS: statistics, **(message or {})}, result)
    # Also without a result: what was told may have been read by a copy, and is overwritten once this is answered.
    tasks.transfers.finish()
    packed = b"".join(_COUNT.pack(float(losses), float(errors), float(samples)) for losses, errors, samples in counts)
    return (EMPTY if message is None else DONE) + _SPAN.pack(begin, time.monotonic()) + packed


def _collect_in(result: Message, tasks: Tasks) -> None:
    """Have the gradient collected where the result is to be, if that is one such vector: most often it is the result.

    A replica's own vector is then never touched, so it takes no memory. If there were several tensors, putting one in
    its place could overwrite the gradient that another is still to be made of.
    """
    names = [name for name in result if name != STATISTICS]
    replica = tasks.oracle.replica
    if not tasks.transfers.in_place or len(names) != 1:
        return
    place = result[names[0]]
    if place.shape == replica.gradient.shape and place.dtype == replica.gradient.dtype:
        replica.collect_in(place)


def _told(error: Exception) -> tuple[bool, str]:
    """Return whether an error is wrong input, and its message or its traceback."""
    if isinstance(error, InputError):
        return True, str(error)
    return False, "".join(traceback.format_exception(error))
