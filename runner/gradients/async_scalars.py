"""Numbers that a GPU is still computing, looked at without waiting for them."""

from __future__ import annotations

import torch
from torch import Tensor


class AsyncScalars:
    """A small tensor's values as they were some moments ago.

    Each look starts a copy to page-locked memory and returns what an earlier one brought, if it has arrived.
    """

    def __init__(self) -> None:
        # Made at the first look, which knows the shape: page-locked memory is slow to get, and most runs need none.
        self._landing: Tensor | None = None
        self._landed: torch.cuda.Event | None = None

    def __call__(self, numbers: Tensor) -> list[float] | None:
        """Return values that `numbers`, on a GPU, had at an earlier look; None while they are on their way."""
        values = None
        # Reading a GPU's tensor directly would make the host wait for all work queued before it.
        if self._landing is None or self._landed is None:
            self._landing = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._landed = torch.cuda.Event()
        elif self._landed.query():
            # Before the next copy starts, which overwrites them.
            values = self._landing.tolist()
        else:
            # Starting another copy now would overwrite the one that is on its way.
            return None
        self._landing.copy_(numbers, non_blocking=True)
        self._landed.record(torch.cuda.current_stream(numbers.device))
        return values
