import os
from pathlib import Path

import pytest

from runner.config import resources


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of eight cores, whose control groups are the returned folder's."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(resources, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resources, "_OWN", tmp_path / "own")
    (tmp_path / "groups" / "a" / "b").mkdir(parents=True)
    (tmp_path / "own").write_text("0::/a/b\n")
    return tmp_path / "groups"


@pytest.mark.parametrize(("text", "cores"), [("max 100000", 8), ("350000 100000", 3), ("50000 100000", 1)])
def test_quota_of_an_outer_group_bounds_cores(text: str, cores: int, groups: Path):
    (groups / "a" / "cpu.max").write_text(text)
    assert resources.cores() == cores


def test_quota_of_the_first_version_counts(groups: Path, tmp_path: Path):
    (tmp_path / "own").write_text("4:memory:/m\n1:cpu:/c\n0::/\n")
    (groups / "cpu" / "c").mkdir(parents=True)
    (groups / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    (groups / "cpu" / "c" / "cpu.cfs_quota_us").write_text("200000")
    (groups / "cpu" / "c" / "cpu.cfs_period_us").write_text("100000")
    assert resources.cores() == 2


def test_a_sweep_gives_its_jobs_a_share(groups: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(resources.CORES, raising=False)
    assert resources.own_cores() == 8
    monkeypatch.setenv(resources.CORES, "2")
    assert resources.own_cores() == 2


def test_memory_is_that_of_the_tightest_group(groups: Path):
    whole = resources.free_memory()
    assert whole is None or whole > 1 << 20
    (groups / "a" / "memory.max").write_text("3000")
    (groups / "a" / "memory.current").write_text("1000")
    assert resources.free_memory() in (2000, None)


@pytest.mark.parametrize(
    ("names", "visible", "count"),
    [
        ((), None, 0),
        (("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1"), None, 2),
        (("nvidia0", "nvidia1"), "1", 1),
        (("nvidia0", "nvidia1"), "0,-1,1", 1),
        (("nvidia0",), "", 0),
        ((), "0", 0),
        (("kfd",), None, 1),
    ],
)
def test_gpus_are_counted(
    names: tuple[str, ...], visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert resources.gpus(tmp_path) == count
