"""A message as one buffer of bytes: a header, then the method's tensors, so that it is sent as one.

Small tensors sent one by one would each pay the latency of a transfer, and a fault between two of them would leave a
message half received.
"""

from __future__ import annotations

import torch

from algorithms.base import Fields, Message, field_of

HEADER_WORDS = 4
"""int64 words of the header."""
NUMBER_WORDS = 4
"""float64 words after the header."""
BATCH, STOP, ROUND, RESTORE, SHARD, KEEP, TELL, DROPPED = 0, 1, 2, 3, 4, 5, 6, 7
"""What a message to a worker asks for: compute on one or more batches, or end, or take in a buffer that follows it: the
broadcast of a barrier's round, the state of a worker in a run that goes on, what is known of a shard of the training
set, or what a half keeps; or tell what it keeps. A push has the kind of its batches, or says that they
were dropped."""


class MessageBuffer:
    """A reusable buffer for messages of one layout.

    Args:
        fields: the tensors, in order.
        pinned: allocate page-locked memory, for copies to and from a GPU.

    Attributes:
        raw: uint8 vector (bytes,), what is sent.
        header: int64 view (4,): the kind; for batches how many and the updates so far; for a round its number, the
            shard to answer for (-1 for none) and the number of the batch that comes next; to tell what is kept, the
            pushes of the worker that the server has taken in.
        numbers: float64 view (4,): sums of losses, errors and samples, seconds of computing.
        tensors: views by name.
    """

    def __init__(self, fields: Fields, *, pinned: bool = False) -> None:
        self.pinned = pinned
        words = 8 * (HEADER_WORDS + NUMBER_WORDS)
        places, end = {}, words
        for name, declared in fields.items():
            field = field_of(declared)
            # A view has to begin at a multiple of its elements' bytes, and the field before it may end anywhere.
            begin = -(-end // field.dtype.itemsize) * field.dtype.itemsize
            end = begin + field.nbytes
            places[name] = (begin, end, field.dtype)
        self.raw = torch.zeros(end, dtype=torch.uint8, pin_memory=pinned)
        self.header = self.raw[: 8 * HEADER_WORDS].view(torch.int64)
        self.numbers = self.raw[8 * HEADER_WORDS : words].view(torch.float64)
        self.tensors: Message = {name: self.raw[low:high].view(dtype) for name, (low, high, dtype) in places.items()}

    def fill(self, message: Message) -> None:
        """Copy a message's tensors in; fields that `message` lacks stay as they are.

        What comes from a GPU into page-locked memory is on its way then; it has arrived when the GPU's stream is done.
        """
        for name, tensor in message.items():
            self.tensors[name].copy_(tensor, non_blocking=self.pinned)
