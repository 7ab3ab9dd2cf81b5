"""Work that a GPU does beside other work: a copy from CPU memory, while kernels prepare what the copy is needed for.

What does it is behind an interface, `SideStream`, so that the tests can do it on a CPU, with a double whose work is not
done before it is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class SideStream(Protocol):
    """Does work beside that of the current stream."""

    def can_copy(self, source: Tensor) -> bool:
        """Return whether a copy from `source` can be such work."""
        ...

    def start(self, work: Callable[[], None]) -> Callable[[], None]:
        """Have `work` done after all that the current stream was given so far, and beside what it is given next.

        Returns:
            what makes the current stream, not the host, wait for it; to be called once.
        """
        ...


class CudaSideStream:
    """A second stream of a GPU. Captured together with the work beside it, it becomes a branch of the graph.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def can_copy(self, source: Tensor) -> bool:
        """Return whether it is in page-locked CPU memory: other memory makes the host wait and cannot be captured."""
        return source.device.type == "cpu" and source.is_pinned()

    def start(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `SideStream.start`; `work` must neither allocate nor free GPU memory, which belongs to a stream."""
        # The copy overwrites weights that kernels queued before may still be reading.
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            work()
        return self._join

    def _join(self) -> None:
        # The device waits, not the host, which goes on launching kernels.
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
