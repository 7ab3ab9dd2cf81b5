"""The training step as a CUDA graph: recorded once for each number of samples, then replayed without Python.

A small network costs what launching its some hundred kernels costs. A graph launches them all at once, with the
arguments that they had when it was recorded: the same addresses and the same numbers. So whatever differs from step to
step (sample numbers, epoch) is copied into buffers that stay where they are, and everything that a step reads or writes
besides (weights, gradient, statistics, totals, samples) must stay where it is too.

What records is behind an interface, `Graphs`, so that the tests can do it on a CPU, with a double that really repeats
recorded operators at recorded addresses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

log = logging.getLogger("dcrun")

MAX_GRAPHS = 4
"""Numbers of samples, and places that weights come from, for which a step is captured, at most: a run has two to four
(whole batches, and what is left)."""
WARM_UP_STEPS = 3
"""Steps before a capture, as PyTorch's notes on CUDA graphs advise: libraries choose and load their kernels there."""

TrainStep = Callable[[Tensor, "int | Tensor", "Tensor | None"], None]
"""Makes a step on sample numbers [B] in an epoch, with operators on the device alone; reads weights that are in CPU
memory, if it is given any, in a copy that it starts itself."""


class Graphs(Protocol):
    """Records work on a device."""

    def warming_up(self) -> AbstractContextManager[Any]:
        """Return the context in which the work is done some times before it is captured."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record `work`, without doing it, and return what does it.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        ...


class CudaGraphs:
    """CUDA graphs on one device, which share their memory: no two of them ever run at the same time.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        # One pool for all graphs: each by itself would keep a whole step's activations in memory.
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: list[torch.cuda.CUDAGraph] = []

    def warming_up(self) -> AbstractContextManager[Any]:
        """Return the stream that captures: what is warm belongs to a stream."""
        return _WarmUpStream(self.stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Graphs.capture`."""
        graph = torch.cuda.CUDAGraph()
        # Also one whose capture fails lives on: the allocator may still ask it what belongs to it.
        self.graphs.append(graph)
        before = torch.cuda.current_stream(self.device)
        try:
            # Only what this thread does may spoil a capture: others may be waiting for transfers meanwhile.
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                work()
        finally:
            # Before 2.15 a capture that fails where it ends leaves its own stream the current one.
            torch.cuda.set_stream(before)
        return graph.replay


class _WarmUpStream:
    """A stream of its own that begins after the current one's work, and is finished before what follows there."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream
        self.context = torch.cuda.stream(stream)

    def __enter__(self) -> None:
        # What was queued before may still write what the warm-up reads.
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        self.context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.context.__exit__(*error)
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


class _Captured(NamedTuple):
    """A recorded step and its inputs."""

    ids: Tensor
    arriving: Tensor | None
    replay: Callable[[], None]


class CapturedSteps:
    """Make training steps, from the second one with so many samples on by replaying a graph.

    The first one is made as it is: what is wrong with a network shows there as it does without graphs. Where a step
    cannot be captured, this and all that follow are made as they are, and the log says so once.

    Args:
        step: makes a step.
        graphs: records it.
        preserved: returns the tensors that the steps made to warm up must leave as they are: statistics, totals.
        device: where sample numbers are.
    """

    def __init__(
        self, step: TrainStep, *, graphs: Graphs, preserved: Callable[[], Sequence[Tensor]], device: torch.device
    ) -> None:
        self.step = step
        self.graphs = graphs
        self.preserved = preserved
        self.captured: dict[tuple[int, int], _Captured] = {}
        self.refused: str | None = None
        # On the device and always at this address: graphs read the epoch from here.
        self._epoch = torch.zeros((), dtype=torch.int64, device=device)
        self._held_epoch = 0
        self._seen: set[tuple[int, int]] = set()

    def has(self, size: int) -> bool:
        """Return whether a step on so many samples was captured."""
        return any(size == captured for captured, _ in self.captured)

    def __call__(self, ids: Tensor, epoch: int, arriving: Tensor | None = None) -> None:
        """Make a step on the samples `ids` [B] of an epoch, with weights that come from CPU memory, or that are there.

        A graph copies from the address that it was recorded with: a step from another one is another step.
        """
        key = _key(ids, arriving)
        captured = self.captured.get(key)
        # Only a size that comes again is worth a capture, which makes three steps more.
        if captured is None and self.refused is None and key in self._seen:
            captured = self._capture(ids, arriving)
        if captured is None:
            self._seen.add(key)
            self.step(ids, epoch, arriving)
            return
        # Into the buffer that the graph reads; the copy is queued before the replay on the same stream, so in order.
        captured.ids.copy_(ids, non_blocking=True)
        # Filled only where it changes: each launch that a step saves is what graphs are for.
        if epoch != self._held_epoch:
            self._epoch.fill_(epoch)
            self._held_epoch = epoch
        captured.replay()

    def refuse(self, reason: str, level: int = logging.INFO) -> None:
        """Capture nothing from now on, and say why, unless that has been said; on the terminal too as a warning."""
        if self.refused is None:
            self.refused = reason
            log.log(level, "training steps are made without CUDA graphs: %s", reason)

    def _capture(self, ids: Tensor, arriving: Tensor | None = None) -> _Captured | None:
        # A method that cuts its batches anew each time would go on recording graphs, each of which takes memory.
        if len(self.captured) == MAX_GRAPHS:
            self.refuse(f"there are more than {MAX_GRAPHS} kinds of batches; those captured before still use them")
            return None
        # A buffer of the graph's own: the caller's ids are a view of an epoch's
        # permutation, at another place in each step.
        static = ids.to(self._epoch.device, copy=True)

        def work() -> None:
            self.step(static, self._epoch, arriving)

        # Warming up makes real steps. Random numbers that a network draws are not to depend on it either.
        kept = [(tensor, tensor.clone()) for tensor in self.preserved()]
        device = self._epoch.device
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []), self.graphs.warming_up():
                for _ in range(WARM_UP_STEPS):
                    work()
            # Recording does no work: the step of this call is made by the first replay.
            replay = self.graphs.capture(work)
        except Exception as error:  # noqa: BLE001 (whatever a network's Python raises while it is recorded)
            # The same step was made without graphs before: the network and its data are not what is wrong.
            reason = str(error).strip().splitlines() or [type(error).__name__]
            self.refuse(f"they cannot be captured ({reason[0]})", logging.WARNING)
            return None
        # Also after a failure: the step is then made as it is, and must find what it
        # would have found without the attempt.
        finally:
            with torch.no_grad():
                for tensor, before in kept:
                    tensor.copy_(before)
        made = self.captured[_key(ids, arriving)] = _Captured(static, arriving, replay)
        return made


def _key(ids: Tensor, arriving: Tensor | None) -> tuple[int, int]:
    """Return what tells steps apart: the number of samples, and the address that the weights come from, or 0."""
    # 0 is no address of a tensor.
    return ids.numel(), 0 if arriving is None else arriving.data_ptr()
