"""Methods on shared memory, on real processes; what they share with a parameter server is tested there."""

import errno
import os
import signal
from pathlib import Path

import pytest

from runner.config.errors import InputError
from runner.processes import leftovers, shared_memory
from runner.train import build
from tests.runner.processes.test_spawn import RUN, Watched
from tests.trial import compose, run_in, train

NAMES = ["hogwild", "shared_asysvrg"]
SMALL = ("model=mlp", "dataset.limit_train=104", "dataset.limit_test=50", "run.batch_size=8")


def own(name: str) -> tuple[str, ...]:
    return (f"algorithm={name}", *(["algorithm.inner=7"] if name != "hogwild" else []))


@pytest.mark.parametrize("coordinates", ["null", "500"])
@pytest.mark.parametrize("name", NAMES)
def test_one_worker_ends_with_the_simulations_bits(name: str, coordinates: str, tmp_path: Path):
    decay = "algorithm.weight_decay=0.01"
    overrides = (*own(name), *SMALL, "cluster.workers=1", f"algorithm.coordinates={coordinates}", decay, "run.epochs=4")
    simulated = train(*overrides, folder=tmp_path)
    code, summary = run_in(tmp_path / "run", *overrides, "cluster=processes")
    assert code == 0
    assert summary["weights_sha256"] == simulated.sha256
    assert summary["updates"] == simulated.control.updates
    assert summary["bytes_sent"] > 0
    assert summary["bytes_sent"] == simulated.executor.bytes_sent
    assert not (tmp_path / "run" / "trace.jsonl").exists()


@pytest.mark.slow
def test_others_take_over_a_killed_workers_shard(tmp_path: Path):
    watched = Watched(tmp_path, ("worker 1", signal.SIGKILL))
    code, summary = run_in(tmp_path, *own("shared_asysvrg"), *RUN, "run.epochs=12")
    assert watched.none_left()
    assert (code, summary["status"], summary["workers_lost"]) == (0, "completed", 1)
    assert summary["epochs"] >= 12


def test_a_resumed_run_has_its_snapshot(tmp_path: Path):
    overrides = (*own("shared_asysvrg"), *SMALL, "cluster.workers=1", "run.epochs=8", "cluster.compute.seconds=0.01")
    whole = train(*overrides, folder=tmp_path)
    watched = Watched(tmp_path, ("server", signal.SIGTERM))
    # Nobody writes while the weights are saved, so what one worker wrote is neither lost nor written twice.
    assert run_in(tmp_path, *overrides, "cluster=processes")[0] == 143
    assert watched.none_left()
    code, summary = run_in(tmp_path, *overrides, "cluster=processes", f"run.resume={tmp_path}")
    assert code == 0
    assert summary["weights_sha256"] == whole.sha256


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = set(os.listdir(leftovers.MEMORY)) if leftovers.MEMORY.is_dir() else set()
    assert run_in(tmp_path, *own("hogwild"), *SMALL, "cluster=processes", "cluster.workers=2", "run.epochs=1")[0] == 0
    if leftovers.MEMORY.is_dir():
        assert not {name for name in set(os.listdir(leftovers.MEMORY)) - before if name.startswith("dcrun-")}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("cluster.record=true",), r"cluster.record=true.*; allowed: false, or null"),
        (("run.device=cuda",), r"run.device=cuda: .*shares the memory of processes.*; allowed: cpu, auto"),
        (("run.compile=true",), r"run.compile=true: .*has no server; allowed: false"),
    ],
)
def test_what_shared_memory_cannot_do_is_one_line(overrides: tuple[str, ...], message: str):
    with pytest.raises(InputError, match=f"(?i){message}"):
        build.build_run(compose("algorithm=hogwild", "cluster=processes", *SMALL, *overrides))


def test_ranks_on_several_machines_share_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from runner.train import ranks

    given = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="started 4 processes, 2 of them here; allowed: all on one machine"):
        ranks.run_on_processes(compose("algorithm=hogwild", "cluster=processes"), tmp_path)


def test_too_little_memory_is_wrong_input(monkeypatch: pytest.MonkeyPatch):
    """Mapped all the same, it would kill whoever touches the first page that is not there."""

    def full(nbytes: int) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(leftovers, "make_file", full)
    with pytest.raises(InputError, match=r"^cluster=processes: the shared weights need 4\.0 MB in /dev/shm, .*allowed"):
        shared_memory._memory(4_000_000)
