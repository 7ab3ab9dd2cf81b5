"""Bytes between the server and one worker, and what an error of a transfer says.

Each worker has a two-rank gloo group of its own with the server: a worker that dies, even in the middle of a large
message, breaks its own link and no other. In one group of all ranks a single dead one would end every transfer.
"""

# torch's type stubs do not know what a gloo group can do.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

import re

import torch.distributed as dist
from torch import Tensor

from runner.processes.rendezvous import Rendezvous

MESSAGES, RECALLS = 0, 1
"""Tags, of two orders of messages on a link: what either side waits for, and what a worker only looks for."""


class Link:
    """A channel of bytes between the server and one worker.

    Args:
        rendezvous: where the two meet; rank 0 is the server.
        worker: the worker's number, from 0.
    """

    def __init__(self, rendezvous: Rendezvous, worker: int) -> None:
        options = dist.ProcessGroupGloo._Options()
        options._timeout = rendezvous.transfer_timeout()
        # A link carries one message at a time each way, so one thread is enough; the server has a link to every worker.
        options._threads = 1
        # The default device takes the address that the host's name resolves to: one that other machines reach where
        # they should not, or, on most Debian machines, loopback where they should.
        if rendezvous.interface is None:
            options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        else:
            options._devices = [dist.ProcessGroupGloo.create_device(interface=rendezvous.interface)]
        self.side = 0 if rendezvous.rank == 0 else 1
        # A prefix for each link: groups of two ranks each would else find each other's addresses under the same keys.
        store = dist.PrefixStore(f"link{worker}", rendezvous.store)
        with rendezvous.breakable.opening(worker + 1):
            self.group = dist.ProcessGroupGloo(store, self.side, 2, options)

    def send(self, buffer: Tensor, tag: int = MESSAGES) -> dist.Work:
        """Start sending a contiguous tensor; it must not change before the returned work is waited for."""
        return self.group.send([buffer], 1 - self.side, tag)

    def post(self, buffer: Tensor, tag: int) -> dist.Work:
        """Return a receive that is not waited for: the tensor changes when the message comes. To wait has a timeout."""
        return self.group.recv([buffer], 1 - self.side, tag)

    def receive(self, buffer: Tensor) -> None:
        """Wait for a tensor of the same size.

        Raises:
            RuntimeError: the other side is gone, or too much time has passed.
        """
        self.post(buffer, MESSAGES).wait()


def is_peers_fault(error: RuntimeError) -> bool:
    """Return whether an error of a transfer says that the other side is gone or silent.

    gloo has no type of its own for such errors, so its messages have to be looked at.
    """
    return isinstance(error, dist.DistError) or "gloo/" in str(error) or "onnection" in str(error)


def reason(error: object) -> str:
    """Return what an error of a transfer says, without gloo's source files and advice."""
    return re.sub(r"^\[[^\]]*\] *", "", str(error).strip().splitlines()[0]).split(". This is typically")[0]
