"""What the supervisor makes of its ranks; the ranks, the clock and the waiting are the test's own."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from runner.processes import heartbeat, supervision
from runner.processes.child import DEAD_PEER
from runner.processes.supervision import ProcessSupervisor

TIMEOUT = 10.0
"""Eight seconds of silence are one too many."""


class Rank:
    """A process that lives until a test says otherwise."""

    def __init__(self, rank: int) -> None:
        self.pid = 100 + rank
        self.sentinel = rank
        self.exitcode: int | None = None
        self.joins: list[float] = []

    def kill(self) -> None:
        if self.exitcode is None:
            self.exitcode = -9

    def join(self, timeout: float | None = None) -> None:
        self.joins.append(-1.0 if timeout is None else timeout)


class Run:
    """A supervisor whose waits are played by a list of calls, one for each look at the ranks.

    The ranks give a heartbeat before each call, unless they are in `stopped`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, server: bool, world: int = 3) -> None:
        self.now = 1000.0
        self.acts: Iterator[Callable[[], None]] = iter(())
        self.stopped: set[int] = set()
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(heartbeat, "time", clock)
        monkeypatch.setattr(supervision, "time", clock)
        monkeypatch.setattr(supervision, "connection", SimpleNamespace(wait=self._wait))
        cfg = OmegaConf.create({"cluster": {"timeout": TIMEOUT}})
        self.supervisor = ProcessSupervisor(cfg, None, server=server, world=world, run_rank=print)  # type: ignore[arg-type]
        self.ranks = [Rank(rank) for rank in range(world)]
        processes: Any = self.ranks
        self.supervisor.processes = processes
        self.told: list[tuple[int, str]] = []
        self.told_at = 0.0
        pipe: Any = SimpleNamespace(send=self._tell)
        self.supervisor.pipe = pipe
        for rank in range(world):
            self.supervisor.heartbeats.beat(rank)

    def _wait(self, sentinels: list[int], timeout: float) -> None:
        assert sentinels == [rank.sentinel for rank in self.ranks if rank.exitcode is None]
        next(self.acts)()
        self.now += timeout
        for rank in range(len(self.ranks)):
            if rank not in self.stopped:
                self.supervisor.heartbeats.beat(rank)

    def _tell(self, lost: tuple[int, str]) -> None:
        self.told.append(lost)
        self.told_at = self.now

    def watch(self, *acts: Callable[[], None]) -> tuple[int, str | None]:
        self.acts = iter(acts)
        return self.supervisor.watch()

    def end(self, rank: int, code: int) -> Callable[[], None]:
        def act() -> None:
            self.ranks[rank].exitcode = code

        return act

    def stop(self, *ranks: int) -> Callable[[], None]:
        return lambda: self.stopped.update(ranks)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def nothing() -> None:
    """All goes on."""


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_rank_0_answers_for_the_run(monkeypatch: pytest.MonkeyPatch, server: bool, code: int):
    run = Run(monkeypatch, server=server)
    assert run.watch(nothing, run.end(0, code)) == (code, None)


def test_a_killed_rank_0_is_named(monkeypatch: pytest.MonkeyPatch):
    run = Run(monkeypatch, server=True)
    code, fault = run.watch(run.end(0, -9))
    assert code == DEAD_PEER
    assert fault is not None and fault.startswith("server (rank 0, pid 100) was killed by SIGKILL")


def test_a_servers_run_goes_on_without_a_worker(monkeypatch: pytest.MonkeyPatch):
    run = Run(monkeypatch, server=True)
    run.supervisor.heartbeats.mark_joined()
    run.supervisor.heartbeats.mark_step(2, 7)
    assert run.watch(run.end(2, -9), nothing, nothing, run.end(0, 0)) == (0, None)
    [(worker, fault)] = run.told
    assert worker == 1
    assert fault.startswith("worker 1 (rank 2, pid 102) was killed by SIGKILL; its last message was number 7, ")


def test_a_silent_worker_is_killed_in_time(monkeypatch: pytest.MonkeyPatch):
    run = Run(monkeypatch, server=True)
    run.supervisor.heartbeats.mark_joined()
    assert run.watch(run.stop(1), *[nothing] * 30, run.end(0, 0)) == (0, None)
    assert run.ranks[1].exitcode == -9
    [(worker, fault)] = run.told
    assert (worker, "is stuck: no heartbeat for 8." in fault) == (0, True)
    assert 8.0 < run.told_at - 1000.0 < 9.0


@pytest.mark.parametrize("server", [True, False])
def test_loss_before_all_joined_ends_run(monkeypatch: pytest.MonkeyPatch, server: bool):
    run = Run(monkeypatch, server=server)
    code, fault = run.watch(run.end(1, -9))
    assert code == DEAD_PEER
    assert fault is not None and "(rank 1, pid 101) was killed by SIGKILL; before its first " in fault
    assert run.ranks[0].joins, "rank 0 gets time to save"
    assert not run.told


@pytest.mark.parametrize("code", [1, 2])
def test_refused_input_is_no_fault(monkeypatch: pytest.MonkeyPatch, code: int):
    run = Run(monkeypatch, server=False)
    assert run.watch(run.end(1, code)) == (code, None)


def test_a_collective_rank_may_end_before_rank_0(monkeypatch: pytest.MonkeyPatch):
    run = Run(monkeypatch, server=False)
    assert run.watch(run.end(1, 0), run.end(2, DEAD_PEER), nothing, run.end(0, 0)) == (0, None)


def test_a_worker_that_ends_unasked_is_lost(monkeypatch: pytest.MonkeyPatch):
    run = Run(monkeypatch, server=True)
    run.supervisor.heartbeats.mark_joined()
    assert run.watch(run.end(1, 0), run.end(0, 0))[0] == 0
    assert [worker for worker, _ in run.told] == [0]
    run.supervisor.heartbeats.mark_finished(2)
    run.ranks[0].exitcode = None
    assert run.watch(run.end(2, 0), run.end(0, 0))[0] == 0
    assert [worker for worker, _ in run.told] == [0], "a worker that was told to end is not lost"


@pytest.mark.parametrize("server", [True, False])
def test_ctrl_z_leaves_all_ranks_in_the_run(monkeypatch: pytest.MonkeyPatch, server: bool):
    """The supervisor goes on first, and looks before any rank has given a heartbeat again."""
    run = Run(monkeypatch, server=server)
    run.supervisor.heartbeats.mark_joined()

    def ctrl_z() -> None:
        run.stopped.update(range(3))
        run.sleep(100 * TIMEOUT)

    assert run.watch(nothing, ctrl_z, nothing, run.stopped.clear, nothing, run.end(0, 0)) == (0, None)
    assert not run.told


def test_ctrl_z_excuses_nobody_for_long(monkeypatch: pytest.MonkeyPatch):
    run = Run(monkeypatch, server=False)

    def ctrl_z() -> None:
        run.stopped.update(range(3))
        run.sleep(100 * TIMEOUT)

    code, fault = run.watch(ctrl_z, *[nothing] * 20)
    assert code == DEAD_PEER
    assert fault is not None and "is stuck: no heartbeat for 8." in fault
