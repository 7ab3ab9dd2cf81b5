"""How the processes of a run find each other, and the process group of those that are all alike.

Processes spawned on one machine meet at a file and use the loopback interface only; how those of `torchrun` find each
other is in `runner.processes.meeting`. Collective methods and pipelines share one group of all ranks; a parameter
server has a link to each worker (`runner.processes.links`).
"""

# torch's type stubs know neither the stores that torch.distributed hands on nor what a gloo group can do.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false
from __future__ import annotations

import datetime
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from runner.processes.breakable import Breakable
from runner.processes.interface import GLOO, NCCL, loopback

TRANSFER_TIMEOUTS = 10
"""A single transfer may take this many times `cluster.timeout`: the other side may be evaluating. Peers that are dead
or stuck are noticed earlier, by whoever started them."""
READY = "rank 0 is ready"
"""Key by which rank 0 tells the others that it has built its run."""


@dataclass
class Rendezvous:
    """Where the processes of a run meet.

    Attributes:
        rank: this process's number, from 0.
        world: number of processes.
        store: key-value store shared by all.
        local: whether this run's launcher spawned all processes, on this machine, and watches them.
        timeout: `cluster.timeout`, seconds.
        interface: name of the network interface to talk through; None for the loopback interface.
        breakable: the connections that this process makes.
    """

    rank: int
    world: int
    store: dist.Store
    local: bool
    timeout: float
    interface: str | None = None
    breakable: Breakable = field(default_factory=Breakable)

    def transfer_timeout(self) -> datetime.timedelta:
        """Return how long a transfer may take."""
        return datetime.timedelta(seconds=TRANSFER_TIMEOUTS * self.timeout)


def file_rendezvous(path: str, rank: int, world: int, timeout: float, interface: str | None = None) -> Rendezvous:
    """Meet at a file on this machine; traffic stays on the loopback interface if no other is named."""
    store = dist.FileStore(path, world)
    rendezvous = Rendezvous(rank, world, store, True, timeout, interface)
    # A store waits 300 seconds by default, longer or shorter than this run's peers may take.
    store.set_timeout(rendezvous.transfer_timeout())
    return rendezvous


def launched_by_torchrun() -> bool:
    """Return whether `torchrun` (or anything that sets its variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def join_group(rendezvous: Rendezvous, device: torch.device) -> None:
    """Make the default process group of all ranks: NCCL if each rank has a GPU of its own, else gloo."""
    # NCCL refuses two ranks on one GPU.
    own_gpu = device.type == "cuda" and torch.cuda.device_count() >= int(
        os.environ.get("LOCAL_WORLD_SIZE", rendezvous.world)
    )
    interface = rendezvous.interface or loopback()
    if rendezvous.local or GLOO not in os.environ:
        os.environ[GLOO] = interface
    if rendezvous.local or NCCL not in os.environ:
        # NCCL takes a name for the beginning of names; "=" stands for this one alone.
        os.environ[NCCL] = interface if rendezvous.local else f"={interface}"
    with rendezvous.breakable.opening():
        dist.init_process_group(
            "nccl" if own_gpu else "gloo",
            store=rendezvous.store,
            rank=rendezvous.rank,
            world_size=rendezvous.world,
            timeout=rendezvous.transfer_timeout(),
        )


def comm_device(device: torch.device) -> torch.device:
    """Return the device on which the default process group carries tensors of `device`.

    PyTorch documents only some collectives on GPU tensors for gloo, so over gloo all go through the CPU.
    """
    return torch.device("cpu") if dist.get_backend() == "gloo" else device


@contextmanager
def rank_zero_first(rendezvous: Rendezvous) -> Iterator[None]:
    """Let rank 0 run the block before the others. If it fails there, the others wait until they are ended.

    Raises:
        RuntimeError: rank 0 did not come through the block within the store's timeout.
    """
    if rendezvous.rank:
        rendezvous.store.wait([READY])
    yield
    # Only after the block: an exception leaves the key unset, so the others build nothing.
    if rendezvous.rank == 0:
        rendezvous.store.set(READY, "yes")


def broadcast_state(state: dict[str, Any] | None, device: torch.device) -> dict[str, Any]:
    """Send rank 0's state to all ranks: tensors and plain values only; empty if rank 0 has None."""
    file = io.BytesIO()
    if dist.get_rank() == 0:
        torch.save(state or {}, file)
    # The size first: a broadcast needs room for all of it on every rank.
    size = torch.tensor([len(file.getbuffer())], device=device)
    dist.broadcast(size, 0)
    # Bytes, not tensors one by one: other ranks do not know which tensors a checkpoint holds.
    content = torch.zeros(int(size), dtype=torch.uint8)
    if dist.get_rank() == 0:
        content.copy_(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))
    content = content.to(device)
    dist.broadcast(content, 0)
    return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
