"""Places of shared memory for tensors that change their shape: what a module of a pipeline sends another.

Who takes one gets the same numbers in the same order in memory, at the same place of a storage of the same size: a
kernel chooses its way by that order, and another way may round differently; and storages are what memory is counted by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from algorithms.base import Message
from runner.simulated.arena import Arena, NotShareable, Place, lay_out_state

DIMENSIONS = 8
"""Most dimensions of a tensor in a slot; a batch of images has four."""
NOTHING = -1
"""Number of dimensions of what is no tensor."""


class TensorSlot(NamedTuple):
    """Where a tensor lies, and what it looks like.

    Attributes:
        head: number of dimensions or `NOTHING`, elements of the storage, offset, sizes and strides, int64.
        elements: room for its elements (capacity,) float32.
    """

    head: Place
    elements: Place

    @classmethod
    def at(cls, offset: int, capacity: int) -> TensorSlot:
        """Return a slot that begins at `offset` and has room for so many elements."""
        tensors: Message = {
            "head": torch.empty(3 + 2 * DIMENSIONS, dtype=torch.int64, device="meta"),
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
            NotShareable: it has more elements than there is room for, or looks like none that can be handed over.
        """
        head, elements = arena.tensor(self.head), arena.tensor(self.elements)
        if tensor is None:
            head[0] = NOTHING
            return
        tensor, shape, strides = tensor.detach(), tensor.shape, tensor.stride()
        dense = _extent(shape, strides) <= elements.numel()
        if len(shape) > DIMENSIONS or not (dense or (0 not in strides and tensor.numel() <= elements.numel())):
            what = f"a module sends a tensor {list(shape)} with strides {list(strides)}, for which there is no room"
            raise NotShareable.because(what)
        storage = tensor.untyped_storage().nbytes() // tensor.element_size()
        told = (len(shape), storage, tensor.storage_offset(), *shape, *strides)
        head[: len(told)] = torch.tensor(told)
        if dense:
            # As it lies there, which is faster than element by element in another order.
            flat = tensor.as_strided((_extent(shape, strides),), (1,))
            elements[: flat.numel()].copy_(flat)
        else:
            elements[: tensor.numel()].view(shape).copy_(tensor)

    def take(self, arena: Arena) -> Tensor | None:
        """Return a copy of the tensor in the slot, None if there is none."""
        dimensions, storage, offset, *numbers = arena.tensor(self.head).tolist()
        if dimensions == NOTHING:
            return None
        shape, strides = numbers[:dimensions], numbers[dimensions : 2 * dimensions]
        elements, extent = arena.tensor(self.elements), _extent(shape, strides)
        whole = torch.empty(storage)
        found = whole.as_strided(shape, strides, offset)
        if extent <= elements.numel():
            whole[offset : offset + extent].copy_(elements[:extent])
        else:
            found.copy_(elements[: found.numel()].view(shape))
        return found


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return the number of elements from the first to the last one in memory."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
