import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from runner.processes.interface import loopback
from runner.processes.rendezvous import (
    Rendezvous,
    comm_device,
    file_rendezvous,
    join_group,
    launched_by_torchrun,
)


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
def test_ranks_with_own_gpus_use_nccl(
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
    join_group(file_rendezvous(str(tmp_path / "store"), 1, 2, 6.0), torch.device(device))
    assert made == [(backend, 1, 2)]
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == loopback()


def test_only_gloo_carries_through_the_cpu(monkeypatch: pytest.MonkeyPatch):
    gpu = torch.device("cuda", 1)
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    assert comm_device(gpu) == torch.device("cpu")
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    assert comm_device(gpu) == gpu


def test_torchruns_environment_is_recognised(monkeypatch: pytest.MonkeyPatch):
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.setenv(name, "1")
    assert launched_by_torchrun()
    for name in names:
        monkeypatch.delenv(name)
        assert not launched_by_torchrun()
        monkeypatch.setenv(name, "1")


def test_a_transfer_may_take_several_timeouts(tmp_path: Path):
    rendezvous: Rendezvous = file_rendezvous(str(tmp_path / "store"), 0, 2, 6.0)
    assert rendezvous.transfer_timeout().total_seconds() == 60.0
    assert rendezvous.local
