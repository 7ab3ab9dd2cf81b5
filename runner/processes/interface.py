"""Which network interface the processes of a run talk through.

Processes of one machine stay on its loopback interface. Otherwise it is the interface that routes to the machine of
rank 0, unless the configuration or the environment names one. gloo left to itself takes the address that the host's
*name* resolves to, which is loopback on most Debian machines: no other machine reaches that.
"""

from __future__ import annotations

import os
import socket

import psutil

from runner.config.errors import InputError

GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
"""Environment variables that name an interface to PyTorch's backends."""
LOOPBACK = "127.0.0.1"
"""Where the processes of one machine meet."""


def interface_of_addresses() -> dict[str, str]:
    """Return the names of this machine's interfaces by their addresses, IPv4 and IPv6."""
    # Python's own `socket.if_nameindex` knows names, but no addresses.
    return {
        # Behind a % an IPv6 address of the link names the interface once more.
        address.address.split("%")[0]: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }


def loopback() -> str:
    """Return the name of the loopback interface.

    Raises:
        RuntimeError: there is none.
    """
    for _, name in socket.if_nameindex():
        if name.startswith("lo"):
            return name
    raise RuntimeError("this machine has no loopback interface")


def check_loopback(key: str, value: object) -> None:
    """Refuse a machine whose processes cannot reach each other.

    Args:
        key: what asks for processes on this machine, for the message.
        value: its value.

    Raises:
        InputError: the loopback interface is down, as in a new network namespace.
    """
    # Asked for the address: to bind a socket to it works although the interface is down.
    if LOOPBACK not in interface_of_addresses():
        what = f"its processes meet at {LOOPBACK}, which this machine does not have"
        raise InputError.of(key, value, what, "with the loopback interface up (ip link set lo up)")


def own_address(host: str) -> str | None:
    """Return the address with which this machine talks to another, None if it does not know the way."""
    try:
        family, *_, place = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Connecting a UDP socket sends nothing: the system only chooses the route, and so the own address.
            probe.connect(place)
            return probe.getsockname()[0].split("%")[0]
    except OSError:
        return None


def is_loopback(address: str) -> bool:
    """Return whether an address leads back to the machine that uses it."""
    return address.startswith("127.") or address == "::1"


def named_interface(configured: str | None) -> str | None:
    """Return the interface that the user names, in the configuration or else for PyTorch's backends.

    Args:
        configured: `cluster.interface`.

    Raises:
        InputError: this machine has no such interface.
    """
    given = {"cluster.interface": configured, GLOO: os.environ.get(GLOO), NCCL: os.environ.get(NCCL)}
    for key, value in given.items():
        # NCCL's variable may also say which interfaces not to take, or give beginnings of names: that is NCCL's alone.
        if not value or (key == NCCL and value not in _names()):
            continue
        # gloo takes a list, and uses one interface after the other; a link has one.
        name = value.split(",")[0]
        if name not in _names():
            raise InputError.of(key, value, "this machine has no such network interface", ", ".join(_names()))
        return name
    return None


def interface_to(host: str) -> str | None:
    """Return the interface through which this machine reaches another, None if there is no way."""
    address = own_address(host)
    return None if address is None else interface_of_addresses().get(address)


def address_of(interface: str) -> str | None:
    """Return an address of an interface, IPv4 rather than IPv6; None if it has none."""
    found = [address for address, name in interface_of_addresses().items() if name == interface]
    # False sorts first.
    return min(found, key=lambda address: ":" in address, default=None)


def _names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]
