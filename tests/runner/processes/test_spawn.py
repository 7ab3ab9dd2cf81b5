"""Runs on processes that lose a part of themselves; gradients take some time, so no run ends before its accident."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from runner.run_folder.contents import read_summary
from runner.run_folder.folders import is_locked
from runner.train.dispatch import dispatch
from tests.trial import SMALL, compose, dcrun, interrupt, rows, run_in, when

SERVER: Any = forkserver._forkserver
"""The module's only one; its types hide what tests need of it."""
RUN = (
    "cluster=processes",
    "cluster.workers=2",
    "cluster.timeout=60",
    "cluster.compute.seconds=0.02",
    "cluster.compute.distribution=constant",
    "model=mlp",
    "dataset.limit_train=60",
    "dataset.limit_test=20",
    "run.batch_size=4",
    "run.eval_every=1",
)
LONG = (*RUN, "run.epochs=1000")
SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "dcrun"):
        yield


def pids() -> dict[str, int]:
    """The ranks that this process has started, by name; other tests may have left processes that decode images."""
    children = multiprocessing.active_children()
    return {child.name: child.pid for child in children if child.pid and child.name.startswith(("server", "worker"))}


def kill(name: str, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pids()[name], number)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Watched:
    """Remembers the ranks of a run, and does something to it after its first checkpoint."""

    def __init__(self, folder: Path, *acts: tuple[str, signal.Signals]) -> None:
        self.pids: dict[str, int] = {}
        self.acts = acts
        # The second row comes after the first one's checkpoint.
        self.thread = when(lambda: rows(folder) > 1, self._act)

    def _act(self) -> None:
        self.pids = pids()
        for name, number in self.acts:
            os.kill(self.pids[name], number)

    def none_left(self) -> bool:
        self.thread.join(30)
        assert self.pids
        return not any(alive(pid) for pid in self.pids.values())


def test_the_others_finish_for_a_killed_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    watched = Watched(tmp_path, ("worker 1", signal.SIGKILL))
    code, summary = run_in(tmp_path, "algorithm=dc_asgd_a", *RUN, "run.epochs=6")
    assert watched.none_left()
    assert (code, summary["status"], summary["workers_lost"]) == (0, "completed", 1)
    assert summary["epochs"] == 6
    assert summary["samples"] == 360
    assert set(watched.pids) == {"server", "worker 0", "worker 1"}
    for name, pid in watched.pids.items():
        assert any(name in line and f"pid {pid}" in line for line in caplog.messages), f"{name} is not listed"
    assert any("worker 1" in line and "SIGKILL" in line for line in caplog.messages)


@pytest.mark.slow
def test_without_workers_the_run_is_interrupted(tmp_path: Path):
    watched = Watched(tmp_path, ("worker 0", signal.SIGKILL), ("worker 1", signal.SIGKILL))
    code, summary = run_in(tmp_path, "algorithm=asgd", *LONG)
    assert watched.none_left()
    assert (code, summary["status"], summary["workers_lost"]) == (3, "interrupted", 2)
    assert list(tmp_path.glob("checkpoints/step-*.pt"))


def test_a_killed_server_leaves_no_orphan(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    watched = Watched(tmp_path, ("server", signal.SIGKILL))
    code, summary = run_in(tmp_path, "algorithm=asgd", *LONG)
    assert watched.none_left()
    assert (code, summary["status"]) == (3, "interrupted")
    assert "server" in summary["error"]
    assert any("run.resume=" in line for line in caplog.messages)


def test_a_killed_peer_ends_a_collective(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    watched = Watched(tmp_path, ("worker 1", signal.SIGKILL))
    code, summary = run_in(tmp_path, "algorithm=ssgd", *LONG)
    assert watched.none_left()
    assert (code, summary["status"]) == (3, "interrupted")
    assert any("worker 1" in line and "SIGKILL" in line for line in caplog.messages)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd"])
def test_a_stuck_worker_is_noticed_within_the_timeout(algorithm: str, tmp_path: Path):
    begun = []

    def stop() -> None:
        begun.append(time.monotonic())
        kill("worker 1", signal.SIGSTOP)

    thread = when(lambda: rows(tmp_path) > 0, stop)
    epochs = ("run.epochs=15",) if algorithm == "asgd" else ("run.epochs=1000",)
    code, summary = run_in(tmp_path, f"algorithm={algorithm}", *RUN, *epochs, "cluster.timeout=4")
    thread.join(30)
    if algorithm == "asgd":
        assert (code, summary["status"], summary["workers_lost"]) == (0, "completed", 1)
    else:
        assert time.monotonic() - begun[0] < 20
        assert (code, summary["status"]) == (3, "interrupted")
    assert not pids()


@pytest.mark.parametrize(
    ("algorithm", "number", "code"),
    [
        ("dc_asgd_a", signal.SIGTERM, 143),
        pytest.param("ssgd", signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param("ssgd", signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_stops(algorithm: str, number: signal.Signals, code: int, tmp_path: Path):
    send = everywhere if number == signal.SIGINT else interrupt
    thread = when(lambda: rows(tmp_path) > 0, lambda: send(number))
    overrides = (f"algorithm={algorithm}", *RUN)
    got, summary = run_in(tmp_path, *overrides, "run.epochs=1000")
    thread.join(30)
    assert (got, summary["status"]) == (code, "interrupted")
    assert not pids()
    newest = max(tmp_path.glob("checkpoints/step-*.pt"))
    assert int(newest.stem.split("-")[1]) == summary["updates"]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd"])
def test_a_warning_to_every_process_saves_once(algorithm: str, tmp_path: Path):
    """As a scheduler that signals all processes of a job does, first with a warning, then with SIGTERM."""
    # Another test's server may have been started by multiprocessing itself.
    SERVER._stop()

    def stop() -> None:
        everyone = [*pids().values(), SERVER._forkserver_pid]
        for number in (signal.SIGUSR1, signal.SIGTERM):
            for pid in everyone:
                os.kill(pid, number)
            interrupt(number)

    thread = when(lambda: rows(tmp_path) > 1, stop)
    code, summary = run_in(tmp_path, f"algorithm={algorithm}", *LONG)
    thread.join(30)
    assert (code, summary["status"], summary["workers_lost"]) == (138, "interrupted", 0)
    assert "error" not in summary
    newest = max(tmp_path.glob("checkpoints/step-*.pt"))
    assert int(newest.stem.split("-")[1]) == summary["updates"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_first_step_stops_the_run(number: signal.Signals, tmp_path: Path):
    """Before rank 0 exists, and while it builds."""
    SERVER._stop()
    for begun in (False, True):
        thread = when(lambda begun=begun: handled(number) and bool(pids()) == begun, lambda: everywhere(number))
        folder = tmp_path / str(begun)
        folder.mkdir()
        assert dispatch(compose("algorithm=ssgd", *LONG), folder) == 128 + number
        thread.join(30)
        assert not pids()


def everywhere(number: signal.Signals) -> None:
    """As a terminal does."""
    for pid in pids().values():
        os.kill(pid, number)
    interrupt(number)


def handled(number: signal.Signals) -> bool:
    """Whether a run has begun to catch a signal."""
    return signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)


def test_rank_0_saves_when_any_rank_stops(tmp_path: Path):
    """At an evaluation too, at which no checkpoint would be due for long."""
    thread = when(lambda: rows(tmp_path) > 1, lambda: kill("worker 1", signal.SIGTERM))
    overrides = ("algorithm=ssgd", *RUN, "run.epochs=200", "run.eval_every=0.01", "run.checkpoint_every=200")
    code, summary = run_in(tmp_path, *overrides)
    thread.join(30)
    assert (code, summary["status"]) == (143, "interrupted")
    [only] = tmp_path.glob("checkpoints/step-*.pt")
    assert int(only.stem.split("-")[1]) == summary["updates"]


def test_a_resumed_collective_has_the_same_bits(tmp_path: Path):
    overrides = ("algorithm=ssgd", "algorithm.momentum=0.9", *RUN)
    thread = when(lambda: rows(tmp_path) > 0, lambda: interrupt(signal.SIGTERM))
    code, stopped = run_in(tmp_path, *overrides, "run.epochs=4")
    thread.join(30)
    assert (code, stopped["status"]) == (143, "interrupted")
    assert 0 < stopped["updates"] < 32
    code, resumed = run_in(tmp_path, *overrides, "run.epochs=4", f"run.resume={tmp_path}")
    assert (code, resumed["status"]) == (0, "completed")
    simulated = run_in(tmp_path / "simulated", "algorithm=ssgd", "algorithm.momentum=0.9", *simulation())[1]
    assert resumed["weights_sha256"] == simulated["weights_sha256"]


def simulation() -> list[str]:
    kept = [item for item in RUN if not item.startswith("cluster")]
    return [*kept, "cluster.workers=2", "run.epochs=4"]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads who is whose parent from /proc")
@pytest.mark.parametrize(
    ("algorithm", "world", "victim"),
    [
        pytest.param(algorithm, world, victim, marks=[] if (algorithm, victim) == ("ssgd", "launcher") else SLOW)
        for algorithm, world in (("asgd", 3), ("ssgd", 2), ("hogwild", 3), ("fr", 2))
        for victim in ("launcher", "fork server", "rank 0", "last rank")
    ],
)
def test_nobody_outlives_a_run(algorithm: str, world: int, victim: str, tmp_path: Path):
    """Whoever of its processes is killed, and though a rank is stopped: it cannot end by itself."""
    folder = tmp_path / "run"
    process = dcrun(*SMALL, f"algorithm={algorithm}", *LONG, "cluster.timeout=8", f"hydra.run.dir={folder}")
    deadline = time.monotonic() + 60
    while rows(folder) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    listed = [line for line in (folder / "dcrun.log").read_text().splitlines() if " pid " in line]
    ranks = [int(line.rsplit(" ", 1)[1]) for line in listed]
    assert len(ranks) == world
    assert all(alive(pid) for pid in ranks)
    assert process.pid is not None
    victims = {"launcher": process.pid, "fork server": parent(ranks[0]), "rank 0": ranks[0], "last rank": ranks[-1]}
    everyone = [*ranks, victims["fork server"]]
    if victim != "last rank":
        os.kill(ranks[-1], signal.SIGSTOP)
    os.kill(victims[victim], signal.SIGKILL)
    served = algorithm in ("asgd", "hogwild")
    if victim == "last rank" and served:
        # The others go on without it.
        deadline = time.monotonic() + 10
        while alive(ranks[-1]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert process.is_alive()
        os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    deadline = time.monotonic() + 15
    while any(alive(pid) for pid in everyone) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(pid) for pid in everyone)
    assert read_summary(folder)["status"] == "interrupted"
    assert not is_locked(folder)
    assert process.exitcode == {"launcher": -signal.SIGKILL}.get(victim, 143 if victim == "last rank" and served else 3)
