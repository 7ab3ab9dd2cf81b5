"""Few numbers in CPU memory as NumPy arrays.

A message of a dual method is some hundred samples of one number each. On so few an operator of PyTorch costs several
times what it computes, NumPy's a fraction of that. Both round sums, differences and products of two elements alike, so
the choice is one of speed alone. On a GPU there is none: its tensors are taken as they are, in the same words.

NumPy warns of numbers that overflow, as those of a run that diverges do. In methods and models it is kept from that.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

# By a filter, since `np.errstate` around a message would take as long as an operator, and hold for one thread alone.
OVERFLOW, WHERE = "(overflow|invalid value) encountered", r"(.*\.)?(algorithms|models)\."
warnings.filterwarnings("ignore", OVERFLOW, RuntimeWarning, WHERE)


def array_of(tensor: Tensor, like: Tensor | None = None) -> Any:
    """Return the memory of a tensor as a NumPy array; of one on a GPU, the tensor itself.

    Args:
        tensor: any.
        like: a tensor whose device is to have the elements; None leaves them where they are.
    """
    if tensor.is_cpu and (like is None or like.is_cpu):
        return tensor.numpy()
    return tensor if like is None else tensor.to(like.device)


def tensor_of(array: Any) -> Tensor:
    """Return what `array_of` returned, or a result of arithmetic with it, as a tensor, without a copy."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def rounded(array: Any, like: Tensor) -> Tensor:
    """Return the same as `tensor_of`, in the type of `like`."""
    if isinstance(array, np.ndarray) and like.dtype == torch.float32:
        return torch.from_numpy(array.astype(np.float32))
    return tensor_of(array).to(like.dtype)


def each_once(drawn: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the numbers that were drawn, ascending and each once, and how often each was; None if all were once."""
    if not drawn.is_cpu:
        ids, times = drawn.unique(return_counts=True)
        return ids, times if ids.numel() < drawn.numel() else None
    ascending = drawn.numpy().copy()
    ascending.sort()
    # A few samples of many are mostly different, and it takes no more than a sort to know.
    if _rises(ascending):
        return torch.from_numpy(ascending), None
    return torch.unique_consecutive(torch.from_numpy(ascending), return_counts=True)


def with_places(drawn: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the numbers that were drawn, each once, and which of them each draw is; None if they are in its order."""
    if not drawn.is_cpu:
        return drawn.unique(return_inverse=True)
    ascending = drawn.numpy().copy()
    ascending.sort()
    if _rises(ascending):
        return drawn, None
    # A sort of numbers that carry their places takes half as long as `argsort`. Fewer than 2^40 samples leave the room.
    low = len(ascending).bit_length()
    order = (drawn.numpy() << low) | np.arange(len(ascending))
    order.sort()
    order &= (1 << low) - 1
    first = np.ones(len(order), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    places = np.empty_like(order)
    places[order] = first.cumsum() - 1
    return torch.from_numpy(ascending[first]), torch.from_numpy(places)


def _rises(ascending: Any) -> bool:
    return not np.count_nonzero(ascending[1:] == ascending[:-1])
