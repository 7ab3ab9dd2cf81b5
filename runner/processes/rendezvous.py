"""How the processes of a run find each other and talk.

Processes spawned on one machine meet at a file and use the loopback interface only; under `torchrun` they meet at its
store. The parameter server has one two-rank gloo group for each worker: a worker that dies, even in the middle of a
large message, breaks its own link and no other. Collective methods share one group of all ranks.
"""

# torch's type stubs know neither the stores that torch.distributed hands on nor what a gloo group can do.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

import datetime
import os
import re
import socket
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = 10
"""A single transfer may take this many times `cluster.timeout`: the other side may be evaluating. Peers that are dead
or stuck are noticed earlier, by whoever started them."""


@dataclass
class Meeting:
    """Where the processes of a run meet.

    Attributes:
        rank: this process's number, from 0.
        world: number of processes.
        store: key-value store shared by all.
        local: whether all processes run on this machine and stay on its loopback interface.
        timeout: `cluster.timeout`, seconds.
    """

    rank: int
    world: int
    store: dist.Store
    local: bool
    timeout: float

    def patience(self) -> datetime.timedelta:
        """Return how long a transfer may take."""
        return datetime.timedelta(seconds=PATIENCE * self.timeout)


def at_file(path: str, rank: int, world: int, timeout: float) -> Meeting:
    """Meet at a file on this machine; traffic stays on the loopback interface."""
    store = dist.FileStore(path, world)
    meeting = Meeting(rank, world, store, True, timeout)
    store.set_timeout(meeting.patience())
    return meeting


def under_torchrun(timeout: float) -> Meeting:
    """Meet where the environment of `torchrun` says."""
    patience = datetime.timedelta(seconds=PATIENCE * timeout)
    store, rank, world = next(dist.rendezvous("env://", timeout=patience))
    return Meeting(rank, world, dist.PrefixStore("dcrun", store), False, timeout)


def expected() -> bool:
    """Whether `torchrun` (or anything that sets its variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


class Link:
    """A channel of bytes between the server and one worker.

    Args:
        meeting: where the two meet; rank 0 is the server.
        worker: the worker's number, from 0.
    """

    def __init__(self, meeting: Meeting, worker: int) -> None:
        options = dist.ProcessGroupGloo._Options()
        options._timeout = meeting.patience()
        options._threads = 1
        if meeting.local:
            options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
        else:
            options._devices = [dist.ProcessGroupGloo.create_default_device()]
        self.side = 0 if meeting.rank == 0 else 1
        store = dist.PrefixStore(f"link{worker}", meeting.store)
        self.group = dist.ProcessGroupGloo(store, self.side, 2, options)

    def send(self, buffer: Tensor) -> dist.Work:
        """Start sending a contiguous tensor; it must not change before the returned work is waited for."""
        return self.group.send([buffer], 1 - self.side, 0)

    def receive(self, buffer: Tensor) -> None:
        """Wait for a tensor of the same size.

        Raises:
            RuntimeError: the other side is gone, or too much time has passed.
        """
        self.group.recv([buffer], 1 - self.side, 0).wait()


def join_group(meeting: Meeting, device: torch.device) -> None:
    """Make the default process group of all ranks: NCCL where each rank has a GPU of its own, gloo otherwise."""
    own_gpu = device.type == "cuda" and torch.cuda.device_count() >= int(
        os.environ.get("LOCAL_WORLD_SIZE", meeting.world)
    )
    if meeting.local:
        # Both backends read the interface from the environment; the loopback device's name differs between systems.
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback()
    dist.init_process_group(
        "nccl" if own_gpu else "gloo",
        store=meeting.store,
        rank=meeting.rank,
        world_size=meeting.world,
        timeout=meeting.patience(),
    )


def carrier(device: torch.device) -> torch.device:
    """Return the device on which the default process group carries tensors of `device`.

    Of the collectives on GPU tensors, PyTorch documents for gloo only some: over gloo all go through the CPU.
    """
    return torch.device("cpu") if dist.get_backend() == "gloo" else device


def is_peers_fault(error: RuntimeError) -> bool:
    """Whether an error of a transfer says that the other side is gone or silent; gloo has no type of its own for it."""
    return isinstance(error, dist.DistError) or "gloo/" in str(error) or "onnection" in str(error)


def reason(error: object) -> str:
    """Return what an error of a transfer says, without gloo's source files and advice."""
    return re.sub(r"^\[[^\]]*\] *", "", str(error).strip().splitlines()[0]).split(". This is typically")[0]


def loopback() -> str:
    """Return the name of the loopback interface.

    Raises:
        RuntimeError: there is none.
    """
    for _, name in socket.if_nameindex():
        if name.startswith("lo"):
            return name
    raise RuntimeError("this machine has no loopback interface")
