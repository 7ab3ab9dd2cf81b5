"""Memory that a run and its compute processes share: tensors at places that all of them know.

One file without a name, mapped by every process; it goes with the last of them, however that ends. What one process
writes another may read once a message about it has passed between them.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import reduction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from algorithms.base import Fields, Message, Stateful, field_of
from runner.config.errors import InputError

ALIGNMENT = 64
"""Bytes at a multiple of which every tensor begins, as those of PyTorch's own allocator do: kernels that look at the
address then take the same path, and round alike."""


class NotShareable(InputError):
    """What a method keeps, or the memory for it, cannot be shared with processes, so one has to compute."""

    @classmethod
    def because(cls, what: str) -> NotShareable:
        """Return the error with its reason."""
        return cls(f"run.compute_processes: {what}; allowed: 1")


class Place(NamedTuple):
    """Where a tensor lies.

    Attributes:
        offset: its first byte.
        shape: of the tensor.
        dtype: type of its elements.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @property
    def end(self) -> int:
        """One past its last byte, filled up to the next multiple of `ALIGNMENT`."""
        return -(-(self.offset + self.nbytes) // ALIGNMENT) * ALIGNMENT

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize


Places = dict[str, Place]


def lay_out(fields: Fields, offset: int, weights: torch.dtype = torch.float32) -> Places:
    """Return places for the tensors of a message, one after the other from `offset` on.

    Args:
        fields: the tensors, see `algorithms.base.Fields`.
        offset: a multiple of `ALIGNMENT`.
        weights: type of the weights.
    """
    places: Places = {}
    for name, declared in fields.items():
        field = field_of(declared, weights)
        places[name] = Place(offset, (field.size,), field.dtype)
        offset = places[name].end
    return places


def lay_out_state(state: Message, offset: int) -> Places:
    """Return places for the tensors of a method's state, one after the other from `offset` on."""
    places: Places = {}
    for name, tensor in state.items():
        places[name] = Place(offset, tuple(tensor.shape), tensor.dtype)
        offset = places[name].end
    return places


def end_of(places: Places, offset: int) -> int:
    """Return where the next tensors may begin; `offset` if there are none."""
    return max((place.end for place in places.values()), default=offset)


class Arena:
    """A piece of memory of `nbytes`, which processes that get it as an argument share."""

    def __init__(self, nbytes: int) -> None:
        file = _nameless_file()
        os.ftruncate(file, max(nbytes, ALIGNMENT))
        self._map(file)

    def _map(self, file: int) -> None:
        self._file = file
        self._bytes = torch.frombuffer(mmap.mmap(file, os.fstat(file).st_size), dtype=torch.uint8)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        # While a process is started, and only then, a descriptor can be handed to it.
        return _opened, (reduction.DupFd(self._file),)

    @property
    def address(self) -> int:
        """Where this process sees its first byte."""
        return self._bytes.data_ptr()

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self._bytes.numel()

    def tensor(self, place: Place) -> Tensor:
        """Return the tensor at a place; a view."""
        raw = self._bytes[place.offset : place.offset + place.nbytes]
        return raw.view(place.dtype).view(place.shape)

    def tensors(self, places: Mapping[str, Place]) -> Message:
        """Return the tensors at places, by name; views."""
        return {name: self.tensor(place) for name, place in places.items()}

    def place_of(self, tensor: Tensor) -> Place | None:
        """Return where a contiguous tensor lies; None if it is not in this memory."""
        offset = tensor.data_ptr() - self._bytes.data_ptr()
        if not 0 <= offset < self._bytes.numel() or not tensor.is_contiguous():
            return None
        return Place(offset, tuple(tensor.shape), tensor.dtype)


def _opened(descriptor: Any) -> Arena:
    arena = Arena.__new__(Arena)
    arena._map(descriptor.detach())
    return arena


class SharedFile:
    """A file in memory in which a process leaves another one tensors of any number and shapes, one content at a time.

    Args:
        descriptor: of a file that is there already; None to make one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._file = _nameless_file() if descriptor is None else descriptor

    def __del__(self) -> None:
        os.close(self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        # As an arena: only while a process is started.
        return _opened_file, (reduction.DupFd(self._file),)

    def put(self, content: Any) -> None:
        """Leave tensors and plain values in place of what is there; views are saved with all that they are views of."""
        with open(self._file, "wb", closefd=False) as file:
            # All processes have one position in the file.
            file.seek(0)
            file.truncate()
            torch.save(content, file)

    def take(self) -> Any:
        """Return copies of what was left."""
        with open(self._file, "rb", closefd=False) as file:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)


def _opened_file(descriptor: Any) -> SharedFile:
    return SharedFile(descriptor.detach())


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        # Not in /dev/shm, which containers make small: a write beyond its end would kill the process.
        return os.memfd_create("dcrun")
    with tempfile.TemporaryFile() as opened:
        return os.dup(opened.fileno())


def move_state(method: Stateful, arena: Arena, places: Places, *, keep: bool) -> None:
    """Let the tensors of a method's state be those at `places`, so that all processes have one state.

    Args:
        method: started; its state has the tensors that `places` names.
        arena: the memory.
        places: where they are to lie.
        keep: copy what the tensors hold to the memory; else they take on what is there.

    Raises:
        NotShareable: a tensor cannot be moved, since the method holds another view of it, or `state` returns a copy.
    """
    state = method.state()
    for name, place in places.items():
        tensor, shared = state[name], arena.tensor(place)
        if tensor.data_ptr() == shared.data_ptr():
            continue
        # A view that the method keeps elsewhere would stay behind, and be another tensor from here on.
        alone = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        if not alone or torch._C._storage_Use_Count(tensor.untyped_storage()._cdata) > 2:
            raise _unmoved(method, name, "is seen through several tensors")
        if keep:
            shared.copy_(tensor)
        tensor.set_(shared)  # pyright: ignore[reportCallIssue, reportArgumentType]
    check_moved(method, arena, places)


def check_moved(method: Stateful, arena: Arena, places: Places) -> None:
    """Check that a method's state still lies where it was put.

    Raises:
        NotShareable: a tensor is another one by now.
    """
    state = method.state()
    for name, place in places.items():
        if arena.place_of(state[name]) != place:
            raise _unmoved(method, name, "is made anew, not written to in place")


def _unmoved(method: Stateful, name: str, what: str) -> NotShareable:
    return NotShareable.because(f"{type(method).__name__}'s state {name} {what}, so processes cannot share it")


def stacked(place: Place, count: int) -> Sequence[Place]:
    """Return `count` places like the first, one after the other."""
    stride = place.end - place.offset
    return [place._replace(offset=place.offset + number * stride) for number in range(count)]
