import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from runner.processes.rendezvous import Link, Meeting, at_file, carrier, expected, is_peers_fault, join_group, loopback


def met(folder: Path, timeout: float = 30.0) -> tuple[Link, Link]:
    """The two ends of a link, both in this process."""
    ends: dict[int, Link] = {}

    def join(rank: int) -> None:
        ends[rank] = Link(at_file(str(folder / "store"), rank, 2, timeout), 0)

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


def test_a_gone_worker_is_an_error_of_a_kind_that_is_recognised(tmp_path: Path):
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


@pytest.mark.parametrize(
    ("device", "gpus", "here", "backend"),
    [
        ("cuda", 2, None, "nccl"),
        ("cuda", 3, None, "nccl"),
        ("cuda", 1, None, "gloo"),
        ("cuda", 1, "1", "nccl"),  # two machines with a GPU each
        ("cuda", 1, "2", "gloo"),
        ("cpu", 2, None, "gloo"),
    ],
)
def test_ranks_with_a_gpu_of_their_own_use_nccl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, here: str | None, backend: str
):
    made: list[tuple[str, int, int]] = []

    def make(backend: str, *, rank: int, world_size: int, **options: Any) -> None:
        made.append((backend, rank, world_size))

    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "before")
    if here is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(dist, "init_process_group", make)
    join_group(at_file(str(tmp_path / "store"), 1, 2, 6.0), torch.device(device))
    assert made == [(backend, 1, 2)]
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == loopback()


def test_only_gloo_carries_through_the_cpu(monkeypatch: pytest.MonkeyPatch):
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    assert carrier(gpu) == torch.device("cpu")
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    assert carrier(gpu) == gpu


def test_other_errors_are_not_the_peers_fault():
    assert not is_peers_fault(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_peers_fault(RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed"))


def test_torchruns_environment_is_recognised(monkeypatch: pytest.MonkeyPatch):
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.setenv(name, "1")
    assert expected()
    for name in names:
        monkeypatch.delenv(name)
        assert not expected()
        monkeypatch.setenv(name, "1")


def test_loopback_is_an_interface_of_this_machine():
    assert loopback().startswith("lo")


def test_a_transfer_may_take_several_timeouts(tmp_path: Path):
    meeting: Meeting = at_file(str(tmp_path / "store"), 0, 2, 6.0)
    assert meeting.patience().total_seconds() == 60.0
    assert meeting.local
