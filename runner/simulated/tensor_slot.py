"""Places of shared memory for tensors that change their shape: what a module of a pipeline sends another.

Who takes one gets the same strides as well as the same numbers: a kernel chooses its way by the order in memory, and
another way may round differently. So the memory between a tensor's first and last element is copied as it lies there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from algorithms.base import Message
from runner.config.errors import InputError
from runner.simulated.arena import Arena, Place, lay_out_state

DIMENSIONS = 8
"""Most dimensions of a tensor in a slot; a batch of images has four."""
NOTHING = -1
"""Number of dimensions of what is no tensor."""


class TensorSlot(NamedTuple):
    """Where a tensor lies, and what it looks like.

    Attributes:
        head: number of dimensions or `NOTHING`, then sizes and strides (1 + 2 · DIMENSIONS,) int64.
        elements: room for its elements (capacity,) float32.
    """

    head: Place
    elements: Place

    @classmethod
    def at(cls, offset: int, capacity: int) -> TensorSlot:
        """Return a slot that begins at `offset` and has room for so many elements."""
        tensors: Message = {
            "head": torch.empty(1 + 2 * DIMENSIONS, dtype=torch.int64, device="meta"),
            "elements": torch.empty(capacity, device="meta"),
        }
        return cls(*lay_out_state(tensors, offset).values())

    @property
    def end(self) -> int:
        """Where the next place may begin."""
        return self.elements.end

    def put(self, arena: Arena, tensor: Tensor | None) -> None:
        """Copy a tensor of float32 to the slot; None says that there is none.

        Raises:
            InputError: its elements lie too far apart.
        """
        head, elements = arena.tensor(self.head), arena.tensor(self.elements)
        if tensor is None:
            head[0] = NOTHING
            return
        shape, strides = tensor.shape, tensor.stride()
        extent = _extent(shape, strides)
        if extent > elements.numel() or len(shape) > DIMENSIONS:
            what = f"a module sends a tensor {list(shape)} with strides {list(strides)}, for which there is no room"
            raise InputError(f"run.compute_processes: {what}; allowed: 1")
        elements[:extent].copy_(tensor.detach().as_strided((extent,), (1,)))
        head[: 1 + 2 * len(shape)] = torch.tensor((len(shape), *shape, *strides))

    def take(self, arena: Arena) -> Tensor | None:
        """Return a copy of the tensor in the slot, None if there is none."""
        dimensions, *numbers = arena.tensor(self.head).tolist()
        if dimensions == NOTHING:
            return None
        shape, strides = numbers[:dimensions], numbers[dimensions : 2 * dimensions]
        return arena.tensor(self.elements)[: _extent(shape, strides)].clone().as_strided(shape, strides)


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return the number of elements from the first to the last one in memory."""
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
