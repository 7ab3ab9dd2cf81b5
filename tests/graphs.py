"""CPU doubles of what a GPU does: graphs that replay operators at recorded addresses, and a host that must not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

WAITING = (
    aten._local_scalar_dense,  # .item(), int(tensor), bool(tensor)
    aten.item,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.repeat_interleave,
)
"""Operators whose result the host waits for."""
READING = (
    Tensor.item,
    Tensor.tolist,
    Tensor.numpy,
    Tensor.cpu,
    Tensor.__bool__,
    Tensor.__int__,
    Tensor.__float__,
    Tensor.__index__,
    Tensor.__contains__,
)
"""Methods that bring values to the host; some of them are no operators on a CPU."""


class HostWaited(AssertionError):
    """The host asked for a value that a GPU would still be computing."""


class Watch:
    """What watches the host.

    Attributes:
        on: whether it does at present.
        seen: operators that went by.
    """

    def __init__(self) -> None:
        self.on = True
        self.seen = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the host wait inside, as for an evaluation."""
        self.on = False
        try:
            yield
        finally:
            self.on = True


class _NoOperator(TorchDispatchMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.watch.seen += self.watch.on
        if self.watch.on and (func.overloadpacket in WAITING or _masked(func, args)):
            raise HostWaited(str(func))
        return func(*args, **(kwargs or {}))


def _masked(func: Any, args: Any) -> bool:
    """Whether a tensor is indexed with a mask, which is made into as many numbers as the data say."""
    indexing = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
    return indexing and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


class _NoMethod(TorchFunctionMode):
    def __init__(self, watch: Watch, pretending: bool) -> None:
        super().__init__()
        self.watch = watch
        self.pretending = pretending

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.watch.on and func in READING:
            raise HostWaited(getattr(func, "__name__", str(func)))
        if self.watch.on and self.pretending and func == _IS_CUDA:
            return True
        return func(*args, **(kwargs or {}))


_IS_CUDA = Tensor.is_cuda.__get__  # type: ignore[attr-defined]


@contextmanager
def host_never_waits(*, pretending: bool = False) -> Iterator[Watch]:
    """Raise `HostWaited` where code would make the host wait for a GPU.

    Copies between devices go by unseen, since here is only one; that methods bring values to the host does not.

    Args:
        pretending: answer `tensor.is_cuda` with yes, so that code takes the way that it takes on a GPU.
    """
    watch = Watch()
    with _NoMethod(watch, pretending), _NoOperator(watch):
        yield watch


class _Tape(TorchDispatchMode):
    """Records operators with their arguments and results, by reference: addresses and numbers stay as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in WAITING or _masked(func, args):
            raise RuntimeError(f"operation not permitted when stream is capturing ({func})")
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result


class CpuGraphs:
    """Graphs on a CPU, see `runner.gradients.cuda_graph.Graphs`.

    Recording also does the work, which on a GPU it would not. Replaying runs the recorded
    operators, without the Python around them, on the tensors that they were given when they were recorded, and checks
    that none of them has moved.

    Attributes:
        replays: number of replays so far.
        captures: number of recordings so far.
        warm_ups: number of contexts asked for in which to warm up.
    """

    def __init__(self) -> None:
        self.replays = 0
        self.captures = 0
        self.warm_ups = 0

    def warming_up(self) -> AbstractContextManager[Any]:
        self.warm_ups += 1
        return nullcontext()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        tape = _Tape()
        with tape:
            work()
        # What the work found there, rather than made: its inputs, and what it leaves its results in.
        places = [
            (tensor, tensor.data_ptr())
            for _, args, kwargs, result in tape.calls
            for tensor in tree_leaves((args, kwargs, result))
            if isinstance(tensor, Tensor)
        ]

        def replay() -> None:
            self.replays += 1
            assert all(tensor.data_ptr() == address for tensor, address in places), "a captured buffer has moved"
            with torch.no_grad():
                for func, args, kwargs, recorded in tape.calls:
                    _into(recorded, func(*args, **kwargs))

        return replay


class Late:
    """Work beside other work on a CPU, see `runner.gradients.side_stream.SideStream`: not done before it is waited for.

    Attributes:
        log: "start" and "join", in the order in which they came.
    """

    def __init__(self) -> None:
        self.log: list[str] = []

    def can_copy(self, source: Tensor) -> bool:
        return True

    def start(self, work: Callable[[], None]) -> Callable[[], None]:
        assert self.log.count("start") == self.log.count("join"), "the work before was never waited for"
        self.log.append("start")

        def join() -> None:
            self.log.append("join")
            work()

        return join


def _into(recorded: Any, fresh: Any) -> None:
    """Have the results of an operator where the operators after it look for them."""
    for place, value in zip(tree_leaves(recorded), tree_leaves(fresh), strict=True):
        if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
            place.copy_(value)
