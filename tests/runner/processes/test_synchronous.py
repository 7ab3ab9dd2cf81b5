"""What ranks that take their steps together do alike; the other ranks are played by the test."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Message
from runner.loop.stop import PeerLost, Stop
from runner.processes.rendezvous import Rendezvous, file_rendezvous
from runner.processes.synchronous import SynchronousProcess

STEPS = 4


class Control:
    """Notes what is asked of it; an evaluation is due after every second step."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.error: Exception | None = None
        self.due = iter([False, True] * STEPS)

    def start(self) -> None:
        self.log.append("start")

    def pause(self) -> None:
        self.log.append("pause")

    def evaluation_due(self) -> bool:
        return next(self.due)

    def skip_evaluation(self) -> None:
        self.log.append("skip")

    def evaluate(
        self, weights: Tensor, statistics: Tensor, totals: Tensor, executor: Any, finished: bool, stop: bool
    ) -> None:
        self.log.append((totals.tolist(), finished, stop))
        totals.zero_()
        if self.error is not None:
            raise self.error


class Oracle:
    """Sums of losses, errors and samples."""

    def __init__(self) -> None:
        self.totals = torch.zeros(3, dtype=torch.float64)


class Rank(SynchronousProcess):
    """Counts its steps; rank 0 gathers the sums of three ranks that are like itself."""

    def __init__(self, rendezvous: Rendezvous, act: Any = lambda step: None) -> None:
        oracle: Any = Oracle()
        batches: Any = range(STEPS)
        control: Any = Control()
        timeline: Any = None
        super().__init__(rendezvous, oracle=oracle, batches=batches, control=control, timeline=timeline)
        self.noted: Control = control
        self.act = act

    def _take_step(self) -> str | None:
        self.oracle.totals.add_(1.0)
        return self.act(self.step)

    def _gather(self) -> Tensor | None:
        return 3 * self.oracle.totals if self.rank == 0 else None

    def weights(self) -> Tensor:
        return torch.zeros(1)

    def running_statistics(self) -> Tensor:
        return torch.zeros(0)

    def columns(self) -> dict[str, float]:
        return {}

    def method_states(self) -> list[Message]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def at(folder: Path, rank: int) -> Rendezvous:
    return file_rendezvous(str(folder / "store"), rank, 3, 2.0)


def test_rank_0_evaluates_the_sums_of_all(tmp_path: Path):
    rank = Rank(at(tmp_path, 0))
    rank.run()
    sums = [6.0] * 3
    expected = ["start", "pause", (sums, False, False), "start", "pause", (sums, True, False), "start", "pause"]
    assert rank.noted.log == expected
    assert [rank.rendezvous.store.get(f"evaluated/{step}") for step in (2, 4)] == [b"go on"] * 2


def test_others_wait_for_the_evaluation(tmp_path: Path):
    rank = Rank(at(tmp_path, 1))
    thread = threading.Thread(target=rank.run, daemon=True)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    assert rank.step == 2
    assert not rank.oracle.totals.any(), "its sums are part of what rank 0 evaluates"
    store = at(tmp_path, 0).store
    for step in (2, 4):
        store.set(f"evaluated/{step}", "go on")
    thread.join(20)
    assert not thread.is_alive()
    assert rank.noted.log == ["start", "pause", "skip", "start", "pause", "skip", "start", "pause"]


@pytest.mark.parametrize("error", [Stop("diverged"), OSError("disk full")])
def test_what_ends_rank_0_ends_the_others(tmp_path: Path, error: Exception):
    first, other = Rank(at(tmp_path, 0)), Rank(at(tmp_path, 2))
    first.noted.error = error
    with pytest.raises(type(error)):
        first.run()
    with pytest.raises(Stop) as stop:
        other.run()
    assert stop.value.status == "interrupted"
    assert (first.step, other.step) == (2, 2)


@pytest.mark.parametrize(("status", "asked"), [("interrupted", True), ("diverged", False)])
def test_all_ranks_stop_after_the_same_step(tmp_path: Path, status: str, asked: bool):
    rank = Rank(at(tmp_path, 0), lambda step: status if step == 0 else None)
    with pytest.raises(Stop) as stop:
        rank.run()
    assert stop.value.status == status
    assert (rank.step, rank.noted.log[2]) == (1, ([3.0] * 3, False, asked))


def test_stop_in_last_step_completes_run(tmp_path: Path):
    rank = Rank(at(tmp_path, 0), lambda step: "interrupted" if step == STEPS - 1 else None)
    rank.run()
    assert rank.noted.log[-3] == ([6.0] * 3, True, True)


def test_a_broken_transfer_is_a_lost_peer(tmp_path: Path):
    def breaks(step: int) -> None:
        if step == 1:
            raise RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer")

    with pytest.raises(PeerLost) as lost:
        Rank(at(tmp_path, 2), breaks).run()
    assert lost.value.message == "rank 2 lost a peer in step 1: Connection closed by peer"
    assert (lost.value.status, lost.value.code) == ("interrupted", 3)


def test_a_bug_is_nobodys_fault(tmp_path: Path):
    def breaks(step: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        Rank(at(tmp_path, 2), breaks).run()
