"""Which interface ranks talk through."""

import shutil
import socket
import subprocess
import sys

import pytest

from runner.config.errors import InputError
from runner.processes import interface
from runner.processes.interface import address_of, interface_of_addresses, interface_to, loopback, named_interface


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (interface.GLOO, interface.NCCL):
        monkeypatch.delenv(name, raising=False)


def test_loopback_is_an_interface_of_this_machine():
    assert loopback().startswith("lo")
    assert interface_of_addresses()["127.0.0.1"] == loopback()
    assert interface_to("127.0.0.1") == loopback()
    assert address_of(loopback()) == "127.0.0.1"


def test_each_address_belongs_to_an_interface():
    names = {name for _, name in socket.if_nameindex()}
    for address, name in interface_of_addresses().items():
        assert name in names
        assert interface_to(address) == name or ":" in address


def test_the_configuration_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch):
    names = ["eth0", "eth1", "ib0"]
    monkeypatch.setattr(interface, "_names", lambda: names)
    assert named_interface(None) is None
    monkeypatch.setenv(interface.NCCL, "^eth")
    assert named_interface(None) is None
    monkeypatch.setenv(interface.NCCL, "ib0")
    assert named_interface(None) == "ib0"
    monkeypatch.setenv(interface.GLOO, "eth1,eth0")
    assert named_interface(None) == "eth1"
    assert named_interface("eth0") == "eth0"


@pytest.mark.parametrize("key", ["cluster.interface", "GLOO_SOCKET_IFNAME"])
def test_an_unknown_interface_is_refused(monkeypatch: pytest.MonkeyPatch, key: str):
    monkeypatch.setattr(interface, "_names", lambda: ["lo", "eth0"])
    if key == interface.GLOO:
        monkeypatch.setenv(key, "eth7")
    said = rf"^{key}=eth7: this machine has no such network interface; allowed: lo, eth0$"
    with pytest.raises(InputError, match=said):
        named_interface("eth7" if key == "cluster.interface" else None)


def test_no_way_is_no_interface():
    assert interface_to("no.such.host.invalid") is None


def test_machine_without_loopback_is_refused():
    """In a network namespace of its own, as `unshare -n` makes it: there a socket can still be bound to 127.0.0.1."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-n", "true"], capture_output=True).returncode:
        pytest.skip("needs root on Linux: makes a network namespace")
    program = "from runner.processes.interface import check_loopback; check_loopback('cluster', 'processes')"
    run = subprocess.run([unshare, "-n", sys.executable, "-c", program], capture_output=True, text=True)
    line = run.stderr.splitlines()[-1]
    assert "InputError: cluster=processes: its processes meet at 127.0.0.1" in line
    assert "allowed: with the loopback interface up" in line
