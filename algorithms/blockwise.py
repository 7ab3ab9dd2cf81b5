"""One pass over flat vectors for an element-wise update rule.

A rule such as `w ← w − η (g + λ g ⊙ g ⊙ (w − w_bak))` costs what its memory traffic costs: with fresh temporaries
every operator reads and writes main memory. Two ways around that: run the operators block by block, so that one small
scratch block stays in the cache, or let `torch.compile` fuse them into a single pass. On a GPU, whose caches are not
ours to block for, rules are fused by default: one kernel in place of a launch and a pass for every operator.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

log = logging.getLogger("dcrun")

BLOCK = 2**16
"""Elements a block and thread: slices and scratch stay in a core's own cache, and an operator takes its threads several
times as long as waiting for each other does."""


class BlockwiseUpdate:
    """Apply an in-place, element-wise rule to whole vectors.

    Args:
        rule: called as `rule(*slices, *scratch, **scalars)`; it updates slices in place. Operands that are None are
            handed through as None.
        scratch: how many scratch slices the rule takes after its operands.
        compiled: fuse the rule with `torch.compile` instead of running it block by block. The result may then differ
            from the block-wise one in the last bits. On a GPU rules are fused in any case, if they can be.
    """

    def __init__(self, rule: Callable[..., None], *, scratch: int, compiled: bool = False) -> None:
        self.rule = rule
        self.scratch = scratch
        self._buffers: list[Tensor] = []
        self._fused = self._compile() if compiled else None

    def __call__(self, *vectors: Tensor | None, **scalars: Any) -> None:
        """Run the rule over `vectors`, flat tensors of equal length on one device (or None)."""
        first = next(v for v in vectors if v is not None)
        if first.is_cuda:
            self._on_gpu(*vectors, **scalars)
            return
        if self._fused is not None:
            self._fused(*vectors, **_tensors(scalars))
            return
        block = max(1, min(first.numel(), BLOCK * torch.get_num_threads()))
        if not self._buffers or self._buffers[0].numel() < block:
            self._buffers = [torch.empty(block, dtype=first.dtype) for _ in range(self.scratch)]
        # Splitting a vector at once costs a fraction of slicing it block by block.
        blocks = [repeat(None) if v is None else v.split(block) for v in vectors]
        for length, *slices in zip((len(part) for part in first.split(block)), *blocks, strict=False):
            self.rule(*slices, *(b[:length] for b in self._buffers), **scalars)

    def _on_gpu(self, *vectors: Tensor | None, **scalars: Any) -> None:
        """Run the rule as one kernel, or with a launch per operator from the first time on that compiling fails."""
        if FUSED.possible:
            if self._fused is None:
                self._fused = self._compile()
            try:
                self._fused(*vectors, **_tensors(scalars))
            except FAILURES as error:
                # Compilation comes before anything is computed: no vector has changed.
                FUSED.give_up(error)
            else:
                return
        self._whole(*vectors, **scalars)

    def _compile(self) -> Callable[..., None]:
        return torch.compile(self._traced, dynamic=False)

    def _whole(self, *vectors: Tensor | None, **scalars: Any) -> None:
        first = next(v for v in vectors if v is not None)
        self.rule(*vectors, *(torch.empty_like(first) for _ in range(self.scratch)), **scalars)

    def _traced(self, *vectors: Tensor | None, **scalars: Tensor) -> None:
        with _Factors():
            self._whole(*vectors, **scalars)


def _tensors(scalars: dict[str, Any]) -> dict[str, Tensor]:
    """Return numbers as 0-d CPU tensors: a kernel takes their values as arguments, so none is compiled into it."""
    return {name: torch.tensor(value) for name, value in scalars.items()}


class _Fused:
    """Whether this process can fuse rules on a GPU.

    Attributes:
        possible: yes, as far as is known.
    """

    def __init__(self) -> None:
        self.possible = True

    def give_up(self, error: Exception) -> None:
        """Stop fusing in this process, and log why."""
        self.possible = False
        reason = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("updates run one kernel per operator: torch.compile cannot fuse them here (%s)", reason[0])


FUSED = _Fused()
FAILURES = (RuntimeError, ImportError, OSError, subprocess.SubprocessError)
"""What a compiler that is missing or broken raises; errors of `torch.compile` itself are RuntimeErrors."""


class _Factors(TorchFunctionMode):
    """Let a rule's `alpha=` and `value=` be tensors of no dimension.

    A number would become a constant of the compiled code, which would then be compiled anew for every learning rate.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        for name in ("alpha", "value"):
            if isinstance(kwargs.get(name), Tensor):
                first, second, *others = args
                args = (first, second * kwargs.pop(name), *others)
        return func(*args, **kwargs)
