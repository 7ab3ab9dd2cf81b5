"""How processes that another launcher started find each other: the store, the interface, and rank 0's monitor.

The environment names a store (`MASTER_ADDR`, `MASTER_PORT`), which torchrun's agent or else rank 0 serves. A store may
outlive a run: torchrun restarts the ranks at the same one. So rank 0 makes a name for each run, which it announces
together with the address of its monitor, and all keys of the run begin with that name.
"""

# torch's type stubs do not know the stores that torch.distributed hands on.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import datetime
import json
import os
import socket
import time
from dataclasses import dataclass

import torch.distributed as dist

from runner.config import launcher
from runner.config.errors import InputError
from runner.loop.stop import PeerLost
from runner.processes import interface as interfaces
from runner.processes.links import reason
from runner.processes.monitor_client import Place
from runner.processes.rendezvous import Rendezvous

ANNOUNCED = "dcrun/monitor"
"""Key under which rank 0 says where its monitor is."""
FOREVER = datetime.timedelta(days=7)
"""How long a rank waits at the store after the meeting: the monitor ends it earlier where somebody is gone."""


@dataclass
class Meeting:
    """Where the ranks meet.

    Attributes:
        store: key-value store shared by all, of this run and others.
        rank: this process's number, from 0.
        world: number of processes.
        timeout: `cluster.timeout`, seconds.
        interface: name of the network interface to talk through; None for the loopback interface.
        address: this machine's address there.
    """

    store: dist.Store
    rank: int
    world: int
    timeout: float
    interface: str | None
    address: str

    def announce(self, port: int, name: str) -> None:
        """Tell all ranks where rank 0's monitor is, and what this run is called."""
        self.store.set(ANNOUNCED, json.dumps(Place(self.address, port, name)))

    def locate(self) -> Place | None:
        """Return where the monitor is, None if rank 0 has not said so yet.

        Raises:
            PeerLost: the store is gone.
        """
        try:
            # Asked with `check`, which returns at once: `get` would wait for a rank 0 that may never come.
            return Place(*json.loads(self.store.get(ANNOUNCED))) if self.store.check([ANNOUNCED]) else None
        except dist.DistError as error:
            raise PeerLost(f"the store of torch.distributed is gone: {reason(error)}") from error

    def rendezvous(self, name: str) -> Rendezvous:
        """Return what the ranks of the run with this name share."""
        store = dist.PrefixStore(f"dcrun/{name}", self.store)
        # A limit of the store's own would end a long evaluation of rank 0 as if a rank were gone.
        store.set_timeout(FOREVER)
        return Rendezvous(self.rank, self.world, store, False, self.timeout, self.interface)


def meet(timeout: float, configured: str | None) -> Meeting:
    """Connect to the store that the environment names, and find the interface to talk through.

    Args:
        timeout: `cluster.timeout`, seconds.
        configured: `cluster.interface`.

    Raises:
        InputError: the environment or the interface is wrong.
        PeerLost: nobody answers.
    """
    launcher.check_complete()
    named = interfaces.named_interface(configured)
    if configured is not None:
        # gloo and NCCL read the environment, and the configuration goes before it.
        for name in (interfaces.GLOO, interfaces.NCCL):
            os.environ.pop(name, None)
    rank, world = launcher.rank(), launcher.world_size()
    deadline = time.monotonic() + timeout
    store = _store(rank, world, timeout)
    # What the user names is not questioned: there may be a better network than the one that leads to rank 0.
    chosen = named or _found(store, rank, world, deadline)
    if chosen is None or chosen == interfaces.loopback():
        return Meeting(store, rank, world, timeout, None, "127.0.0.1")
    address = interfaces.address_of(chosen)
    if address is None:
        raise InputError.of("cluster.interface", chosen, "has no address", "an interface with an address, or null")
    return Meeting(store, rank, world, timeout, chosen, address)


def _store(rank: int, world: int, timeout: float) -> dist.Store:
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # torchrun's agent serves the store itself and says so; without it rank 0 does.
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    limit = datetime.timedelta(seconds=max(timeout, 1.0))
    where = f"MASTER_ADDR={host} MASTER_PORT={port}"
    if not serves:
        _wait_for(host, port, timeout, where)
    try:
        # It does not wait for the others: who is missing is the monitor's to say, by name.
        return dist.TCPStore(
            host, port, world, is_master=serves, timeout=limit, multi_tenant=True, wait_for_workers=False
        )
    except (dist.DistError, RuntimeError) as error:
        if serves:
            raise InputError(
                f"{where}: rank 0 cannot serve there: {reason(error)}; allowed: a free port here"
            ) from error
        raise PeerLost(f"{where}: {reason(error)}") from error


def _wait_for(host: str, port: int, timeout: float, where: str) -> None:
    """Wait until the store takes connections: torch would print pages while it waits.

    Raises:
        PeerLost: it does not in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), max(0.1, deadline - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline - 0.1:
                why = error.strerror or str(error)
                raise PeerLost(f"{where}: no answer within {timeout:g} s (cluster.timeout): {why}") from error
            time.sleep(0.1)


def _found(store: dist.Store, rank: int, world: int, deadline: float) -> str | None:
    """Return the interface that leads to the other machines, None if all ranks share this one.

    Raises:
        PeerLost: another machine did not come.
    """
    if launcher.one_machine():
        return None
    own = interfaces.own_address(os.environ["MASTER_ADDR"])
    if own is not None and not interfaces.is_loopback(own):
        store.set(f"dcrun/address/{rank}", own)
        return interfaces.interface_of_addresses().get(own)
    # An empty answer is an answer: the others go on to the next rank.
    store.set(f"dcrun/address/{rank}", "")
    # On rank 0's machine its name may lead to the machine itself. The others know an address on the network between.
    for other in range(world):
        key = f"dcrun/address/{other}"
        while not store.check([key]):
            if time.monotonic() > deadline:
                raise PeerLost(f"rank {other} did not come in time (cluster.timeout)")
            time.sleep(0.05)
        if address := store.get(key).decode():
            return interfaces.interface_to(address)
    return None
