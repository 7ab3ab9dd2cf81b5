import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.processes.interface import loopback
from runner.processes.links import Link, is_peers_fault
from runner.processes.rendezvous import file_rendezvous


def met(folder: Path, timeout: float = 30.0, interface: str | None = None) -> tuple[Link, Link]:
    """The two ends of a link, both in this process."""
    ends: dict[int, Link] = {}

    def join(rank: int) -> None:
        ends[rank] = Link(file_rendezvous(str(folder / "store"), rank, 2, timeout, interface), 0)

    together(lambda: join(0), lambda: join(1))
    return ends[0], ends[1]


def together(*calls: Callable[[], Any]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_bytes_travel_both_ways_in_order(tmp_path: Path):
    server, worker = met(tmp_path)
    received: list[list[int]] = []

    def work() -> None:
        buffer = torch.zeros(3, dtype=torch.uint8)
        for _ in range(3):
            worker.receive(buffer)
            received.append(buffer.tolist())
            worker.send(buffer + 1).wait()

    def serve() -> None:
        buffer = torch.zeros(3, dtype=torch.uint8)
        for start in (1, 2, 3):
            sent = torch.full((3,), 10 * start, dtype=torch.uint8)
            server.send(sent).wait()
            server.receive(buffer)
            assert torch.equal(buffer, sent + 1)

    together(work, serve)
    assert received == [[10] * 3, [20] * 3, [30] * 3]


def test_a_large_message_arrives_whole(tmp_path: Path):
    server, worker = met(tmp_path)
    sent = torch.arange(3_000_000, dtype=torch.int64).view(torch.uint8)
    got = torch.zeros_like(sent)
    together(lambda: server.send(sent).wait(), lambda: worker.receive(got))
    assert torch.equal(got, sent)


def test_a_gone_worker_is_a_peers_fault(tmp_path: Path):
    server, worker = met(tmp_path)
    errors: list[RuntimeError] = []

    def serve() -> None:
        try:
            server.receive(torch.zeros(8, dtype=torch.uint8))
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    del worker
    thread.join(30)
    assert not thread.is_alive()
    assert is_peers_fault(errors[0])


def test_other_errors_are_not_the_peers_fault():
    assert not is_peers_fault(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_peers_fault(RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed"))


def test_a_link_takes_the_interface_that_is_named(tmp_path: Path):
    server, worker = met(tmp_path, interface=loopback())
    got = torch.zeros(3)
    together(lambda: server.send(torch.ones(3)).wait(), lambda: worker.receive(got))
    assert got.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="nope0"):
        Link(file_rendezvous(str(tmp_path / "other"), 0, 2, 5.0, "nope0"), 0)


def test_breaking_off_ends_a_transfer(tmp_path: Path):
    """As with a worker whose wire is cut: nothing else would end it before long."""
    rendezvous = {rank: file_rendezvous(str(tmp_path / "store"), rank, 2, 300.0) for rank in (0, 1)}
    ends: dict[int, Link] = {}
    together(*(lambda rank=rank: ends.update({rank: Link(rendezvous[rank], 0)}) for rank in (0, 1)))
    errors: list[RuntimeError] = []

    def wait() -> None:
        try:
            ends[0].receive(torch.zeros(4))
        except RuntimeError as error:
            errors.append(error)

    together(wait, lambda: rendezvous[0].breakable.break_off(1))
    assert is_peers_fault(errors[0])
