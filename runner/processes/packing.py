"""A contribution as one vector of float32, which one all-reduce or all-gather carries.

Fields of other types, which are gathered and never added, travel in it as the bytes that they are: nothing is done with
them on the way, so they arrive to the bit. A vector of float32 alone is packed as it always was.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from algorithms.base import Field, Fields, Message, field_of
from runner.config.units import FLOAT_BYTES


class Packing:
    """Pack messages of one layout.

    Args:
        declared: the fields.
        extra: number of float32 elements that follow them.
    """

    def __init__(self, declared: Fields, extra: int) -> None:
        self._fields = {name: field_of(field) for name, field in declared.items()}
        self._words = [-(-field.nbytes // FLOAT_BYTES) for field in self._fields.values()]
        self._extra = extra

    def pack(self, message: Message, extra: Tensor) -> Tensor:
        """Return a message and what follows it as one vector."""
        return torch.cat([*(_words(message[name], field) for name, field in self._fields.items()), extra])

    def unpack(self, vectors: Tensor) -> tuple[Message, Tensor]:
        """Return the fields (R, size) and what follows them (R, extra) of vectors (R, n); views where it can."""
        *pieces, extra = vectors.split([*self._words, self._extra], dim=1)
        fields = zip(self._fields.items(), pieces, strict=True)
        return {name: _values(piece, field) for (name, field), piece in fields}, extra


def _words(tensor: Tensor, field: Field) -> Tensor:
    if field.dtype is torch.float32:
        return tensor.reshape(-1)
    # Filled up to whole float32 elements, since the vector consists of these.
    raw = tensor.contiguous().view(torch.uint8)
    return functional.pad(raw, (0, -raw.numel() % FLOAT_BYTES)).view(torch.float32)


def _values(piece: Tensor, field: Field) -> Tensor:
    if field.dtype is torch.float32:
        return piece
    # A copy: a view of longer elements has to begin at a multiple of their length.
    raw = piece.clone(memory_format=torch.contiguous_format).view(torch.uint8)
    return raw[:, : field.nbytes].contiguous().view(field.dtype)
