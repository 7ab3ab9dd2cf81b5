"""The number of operations of a forward pass: a multiply-add of a convolution or a matrix product counts as two.

PyTorch's `FlopCounterMode` counts the same. But it imports PyTorch's compiler, which takes each rank of a pipeline
longer than a short run does: only its formulas are used here, at the layers that have such products.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import conv_flop_count, mm_flop


class OperationCount:
    """What was counted so far.

    Attributes:
        total: operations.
    """

    def __init__(self) -> None:
        self.total = 0

    def _add(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Count a layer's call; a forward hook."""
        shape: Any = inputs[0].shape
        if isinstance(layer, nn.Conv2d):
            self.total += conv_flop_count(list(shape), list(layer.weight.shape), list(output.shape))
        elif isinstance(layer, nn.Linear):
            rows = inputs[0].numel() // layer.in_features
            self.total += mm_flop((rows, layer.in_features), (layer.in_features, layer.out_features))


@contextmanager
def counting(modules: Iterable[nn.Module]) -> Iterator[OperationCount]:
    """Count the operations of the modules' forward passes inside the `with` statement.

    Args:
        modules: whose layers, convolutions and linear ones, are counted; all others count as nothing.

    Yields:
        The count, complete when the `with` statement ends.
    """
    count = OperationCount()
    hooks = [layer.register_forward_hook(count._add) for module in modules for layer in module.modules()]
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()
