"""How a module on a process talks to the modules before and after it: features go up, error gradients go down.

A message is a header of three whole numbers (samples, layout, a flag) and then, if there are samples, their values
in the order in which they lie in memory: kernels may round differently for another layout. The header arrives when the
other side has sent; what passes between it and the last value is the transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

P2P_HEADER_WORDS = 3
"""int64 words before the values: samples, layout, flag."""


class Received(NamedTuple):
    """A message that arrived.

    Attributes:
        values: [B, ...], None if the other side had nothing to say, or no samples.
        flag: what it said besides.
        sent: second at which the header was here, of the channel's clock.
    """

    values: Tensor | None
    flag: bool
    sent: float


class P2PChannel:
    """Messages of one shape to or from a neighbour, over the default process group, which must be gloo.

    Args:
        peer: the neighbour's rank.
        shape: of one sample's values, float32.
        device: where values that arrive are wanted.
        clock: returns the run's second.
    """

    def __init__(self, peer: int, shape: Sequence[int], device: torch.device, clock: Callable[[], float]) -> None:
        self.peer = peer
        self.shape = tuple(shape)
        self.device = device
        self.clock = clock
        self._leaving: list[tuple[dist.Work | None, Tensor]] = []

    def send(self, values: Tensor | None, flag: bool) -> None:
        """Start sending; waits for the message before this one, so that a module runs ahead by one at most.

        Raises:
            RuntimeError: the neighbour is gone, or silent for too long.
        """
        self.finish()
        last = values is not None and _channels_last(values)
        # Always sent, even with nothing to follow: the neighbour waits for it in every iteration.
        header = torch.tensor([0 if values is None else len(values), int(last), int(flag)])
        self._start(header)
        if values is not None and len(values):
            ordered = values.permute(0, 2, 3, 1) if last else values
            # The copy is sent, because the module may overwrite its own tensor before the message has left.
            self._start(torch.empty(ordered.shape, dtype=torch.float32).copy_(ordered))

    def _start(self, tensor: Tensor) -> None:
        # With its transfer the tensor is kept alive: nobody else holds the copy until it has left.
        self._leaving.append((dist.isend(tensor, self.peer), tensor))

    def finish(self) -> None:
        """Wait until what was sent has left.

        Raises:
            RuntimeError: the neighbour is gone, or silent for too long.
        """
        for work, _ in self._leaving:
            if work is not None:
                work.wait()
        self._leaving.clear()

    def receive(self) -> Received:
        """Wait for a message.

        Raises:
            RuntimeError: the neighbour is gone, or silent for too long.
        """
        # The header comes in a receive of its own: it says how many values follow, fewer in an epoch's last batch.
        header = torch.zeros(P2P_HEADER_WORDS, dtype=torch.int64)
        # Whoever waits here waits for the neighbour, so the clock is read right after it.
        dist.recv(header, self.peer)
        sent = self.clock()
        samples, last, flag = header.tolist()
        if not samples:
            return Received(None, bool(flag), sent)
        shape = (*self.shape[1:], self.shape[0]) if last else self.shape
        values = torch.empty(samples, *shape)
        dist.recv(values, self.peer)
        values = values.to(self.device)
        return Received(values.permute(0, 3, 1, 2) if last else values, bool(flag), sent)


def _channels_last(values: Tensor) -> bool:
    # Values of one channel or one pixel are both, and lie in the same order either way.
    return values.dim() == 4 and not values.is_contiguous() and values.is_contiguous(memory_format=torch.channels_last)


def gather_bytes(state: bytes, world: int) -> list[bytes]:
    """Return every rank's bytes on rank 0, nothing elsewhere; all ranks call it, with no message on its way.

    Raises:
        RuntimeError: a rank is gone, or silent for too long.
    """
    rank = dist.get_rank()
    # First the sizes: a receiver has to make room for what comes.
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(state)]))
    # `dist.gather` wants equal sizes, but what a module keeps of earlier iterations differs from module to module.
    if rank:
        dist.send(torch.frombuffer(bytearray(state), dtype=torch.uint8), 0)
        return []
    found = [state]
    for other in range(1, world):
        content = torch.empty(int(sizes[other]), dtype=torch.uint8)
        dist.recv(content, other)
        found.append(content.numpy().tobytes())
    return found
