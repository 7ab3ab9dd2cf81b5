"""A message as one buffer of bytes: a header, then the method's tensors, so that it is sent as one.

Small tensors sent one by one would each pay the latency of a transfer, and a fault between two of them would leave a
message half received.
"""

from __future__ import annotations

import torch

from algorithms.base import Message
from runner.config.units import FLOAT_BYTES

HEADER_WORDS = 4
"""int64 words of the header."""
NUMBER_WORDS = 4
"""float64 words after the header."""
BATCH, STOP, ROUND, RESTORE, SHARD = 0, 1, 2, 3, 4
"""What a message to a worker asks for: compute on a batch, or end, or take in a buffer that follows it: the broadcast
of a barrier's round, the state of a worker in a run that goes on, or what is known of a shard of the training set."""


class MessageBuffer:
    """A reusable buffer for messages of one layout.

    Args:
        fields: number of float32 elements of each tensor, in order.
        pinned: allocate page-locked memory, for copies to and from a GPU.

    Attributes:
        raw: uint8 vector (bytes,), what is sent.
        header: int64 view (4,): the kind; for a batch its number and the updates so far; for a round its number, the
            shard to answer for (-1 for none) and the number of the batch that comes next.
        numbers: float64 view (4,): sums of losses, errors and samples, seconds of computing.
        tensors: float32 views by name.
    """

    def __init__(self, fields: dict[str, int], *, pinned: bool = False) -> None:
        self.pinned = pinned
        words = 8 * (HEADER_WORDS + NUMBER_WORDS)
        self.raw = torch.zeros(words + FLOAT_BYTES * sum(fields.values()), dtype=torch.uint8, pin_memory=pinned)
        # The 8-byte numbers come first: a view of such numbers has to begin at a multiple of 8 bytes, and the float32
        # after them, of any number, may end anywhere.
        self.header = self.raw[: 8 * HEADER_WORDS].view(torch.int64)
        self.numbers = self.raw[8 * HEADER_WORDS : words].view(torch.float64)
        body = self.raw[words:].view(torch.float32)
        self.tensors: Message = dict(zip(fields, body.split(list(fields.values())), strict=True))

    def fill(self, message: Message) -> None:
        """Copy a message's tensors in; fields that `message` lacks stay as they are.

        What comes from a GPU into page-locked memory is on its way then; it has arrived when the GPU's stream is done.
        """
        for name, tensor in message.items():
            self.tensors[name].copy_(tensor, non_blocking=self.pinned)
