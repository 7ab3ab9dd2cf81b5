"""One worker on simulated shared memory, and the pieces in which vectors are read and written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

PIECES = 8
"""Pieces in which a vector is read or written where that takes time."""


@dataclass
class SimulatedMemoryWorker:
    """The state of one worker: what it has read and what it is writing.

    Attributes:
        read: ŵ (n,), as far as it has been read.
        v: the direction that is being written (n,); None unless it is.
        coordinates: those that are written, ascending; None for all.
        writing: whether the next event is a piece of the write, not of the read.
        piece: number of the next piece.
        version: updates of the shared weights when the read began.
        begin: virtual second of the task's start.
        end: of its last piece.
        rate: learning rate of the write.
        statistics: batch-norm statistics of the batch.
    """

    read: Tensor
    v: Tensor | None = None
    coordinates: Tensor | None = None
    writing: bool = False
    piece: int = 0
    version: int = 0
    begin: float = 0.0
    end: float = 0.0
    rate: float = 0.0
    statistics: Tensor = field(default_factory=lambda: torch.empty(0))

    def state_dict(self) -> dict[str, Any]:
        """Return what is not None, by attribute; the coordinates are called `chosen`, as in files since the first."""
        named = {("chosen" if name == "coordinates" else name): value for name, value in vars(self).items()}
        return {name: value for name, value in named.items() if value is not None}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            value = value.to(device) if isinstance(value, Tensor) else value
            if name == "read":
                # In its place, which other processes may know.
                self.read.copy_(value)
                continue
            # By name: what was None is not in the file, and keeps the None that a new worker has.
            setattr(self, "coordinates" if name == "chosen" else name, value)


def piece_count(seconds: float) -> int:
    """Return the number of pieces in which a vector is read or written that takes so many virtual seconds."""
    # If it takes no time, nobody can come in between: one piece does the same as eight.
    return PIECES if seconds else 1


def piece_bounds(n: int, piece: int, pieces: int) -> slice:
    """Return the coordinates of a piece of a vector (n,)."""
    # Bounds by division, so that neighbouring pieces meet whatever n is.
    return slice(n * piece // pieces, n * (piece + 1) // pieces)


def coordinates_within(coordinates: Tensor | None, piece: slice) -> Tensor | slice:
    """Return the coordinates, ascending, that lie in a piece; all of the piece where they are None."""
    if coordinates is None:
        return piece
    # The coordinates ascend, so those of a piece are neighbours: two searches find them, without a mask over all.
    low, high = torch.searchsorted(coordinates, coordinates.new_tensor([piece.start, piece.stop])).tolist()
    return coordinates[low:high]
