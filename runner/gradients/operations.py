"""The number of operations of a forward pass: a multiply-add of a convolution or a matrix product counts as two.

PyTorch's `FlopCounterMode` counts the same, by the same formulas. But it imports PyTorch's compiler, and that takes
each rank of a pipeline longer than a short run does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class OperationCount(TorchDispatchMode):
    """Count the operations of all that PyTorch computes inside the `with` statement, whatever module calls it.

    Attributes:
        total: operations so far.
    """

    def __init__(self) -> None:
        # Here, not above: it imports Triton, and only what cuts a network into modules counts operations.
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.total = 0
        self._formulas: Mapping[Any, Callable[..., int]] = flop_registry

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Or PyTorch imports its compiler, only to keep it from compiling the method below.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call an operator of PyTorch, and count it if there is a formula for it."""
        output = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=output)
        return output
