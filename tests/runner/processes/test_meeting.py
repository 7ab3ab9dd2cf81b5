"""How launched processes meet: what is wrong is one line, in the time that `cluster.timeout` gives."""

# pyright: reportPrivateImportUsage=false
import os
import socket
import time

import pytest
import torch.distributed as dist

from runner.config.errors import InputError
from runner.loop.stop import PeerLost
from runner.processes import interface
from runner.processes.meeting import meet


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> int:
    port = free_port()
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("RANK", 1), ("WORLD_SIZE", 2), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port)):
        monkeypatch.setenv(name, str(value))
    return port


def test_a_store_that_does_not_answer_is_named(environment: int):
    begin = time.monotonic()
    with pytest.raises(PeerLost) as lost:
        meet(0.5, None)
    assert 0.3 < time.monotonic() - begin < 1.5
    where = f"MASTER_ADDR=127.0.0.1 MASTER_PORT={environment}"
    assert lost.value.message == f"{where}: no answer within 0.5 s (cluster.timeout): Connection refused"


def test_a_name_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASTER_ADDR", "no.such.host.invalid")
    with pytest.raises(PeerLost) as lost:
        meet(0.3, None)
    assert lost.value.message.startswith("MASTER_ADDR=no.such.host.invalid MASTER_PORT=")
    assert ": no answer within 0.3 s (cluster.timeout): " in lost.value.message


def test_a_port_in_use_is_wrong_input(environment: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    with socket.create_server(("", environment)), pytest.raises(InputError, match="allowed: a free port"):
        meet(1.0, None)


def test_an_unknown_interface_is_wrong_input():
    with pytest.raises(InputError, match=r"^cluster\.interface=nope0: this machine has no such network interface"):
        meet(1.0, "nope0")


def test_the_configured_interface_goes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv(interface.GLOO, "nope0")
    meeting = meet(1.0, interface.loopback())
    assert interface.GLOO not in os.environ
    assert (meeting.interface, meeting.address) == (None, "127.0.0.1")


def test_ranks_of_one_machine_stay_on_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(interface, "own_address", lambda host: pytest.fail("nobody else is to be reached"))
    assert meet(1.0, None).interface is None


def test_rank_0s_own_name_may_lead_to_loopback(monkeypatch: pytest.MonkeyPatch):
    """As on Debian: the others tell it an address on the network between them."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(interface, "interface_to", {"10.1.2.3": interface.loopback()}.get)
    port = int(os.environ["MASTER_PORT"])
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=True, multi_tenant=True, wait_for_workers=False)
    store.set("dcrun/address/1", "10.1.2.3")
    assert meet(5.0, None).address == "127.0.0.1"
    store.delete_key("dcrun/address/1")
    with pytest.raises(PeerLost) as lost:
        meet(0.5, None)
    assert lost.value.message == "rank 1 did not come in time (cluster.timeout)"


def test_each_run_has_keys_of_its_own(monkeypatch: pytest.MonkeyPatch):
    """A store outlives a run that torchrun starts again."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    meeting = meet(1.0, None)
    assert meeting.locate() is None
    meeting.announce(5, "first")
    meeting.rendezvous("first").store.set("ready", "yes")
    assert not meeting.rendezvous("second").store.check(["ready"])
    meeting.announce(6, "second")
    assert meeting.locate() == ("127.0.0.1", 6, "second")
