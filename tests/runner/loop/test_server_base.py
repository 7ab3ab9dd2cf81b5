"""The steps of a parameter server, taken one by one by these tests: gradients of w²/2, rate 1/2, then 1/4."""

from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.base import Batch, Step
from runner.loop.server_base import ServerBase
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Timeline
from runner.run_folder.trace import BARRIER, LOST, Trace
from runner.train import build
from tests.traces import ABOUT
from tests.trial import Notes, compose

RUN = (
    *("model=linear", "dataset.limit_train=4", "run.batch_size=1", "run.epochs=1", "cluster.workers=2"),
    *("schedule=multistep", "schedule.lr=0.5", "schedule.milestones=[0.5]", "schedule.gamma=0.5"),
    "algorithm.weight_decay=0",
)


class Server(ServerBase):
    """Steps that nobody orders."""

    def run(self) -> None:
        raise AssertionError("these tests take the steps")


def built(folder: Path, *overrides: str, recorder: Recorder | None = None) -> Server:
    components = build.build_run(compose(*RUN, *overrides))
    control = components.train_control(logger=Notes(), folder=folder, save=lambda updates, state: None)
    control.start()
    return Server(
        components.method,
        weights=torch.tensor([8.0]),
        workers=2,
        statistics=torch.zeros(2),
        totals=torch.zeros(3, dtype=torch.float64),
        batches=components.batches,
        control=control,
        timeline=Timeline(2),
        recorder=recorder,
        compiled=False,
    )


def push(server: Server, worker: int, g: float, now: float) -> int:
    """Push a gradient, and return its staleness."""
    taken = server.push(
        worker, {"g": torch.tensor([g])}, torch.ones(2), [Batch(0, 0, torch.zeros(1, dtype=torch.int64))]
    )
    server.count(taken, now)
    return taken.staleness


def test_three_pushes_by_hand(tmp_path: Path):
    server = built(tmp_path, "algorithm=asgd")
    assert [float(server.pull(worker)["w"]) for worker in (0, 1)] == [8.0, 8.0]
    assert push(server, 0, 8.0, now=1.0) == 0
    assert float(server.pull(0)["w"]) == 4.0
    assert push(server, 1, 8.0, now=2.0) == 1
    assert float(server.weights()) == 0.0
    # Half of the samples are done: the rate is halved from here on.
    assert server.step() == Step(lr=0.25, decay=0.5)
    assert push(server, 0, 4.0, now=3.0) == 1
    assert float(server.weights()) == -1.0
    assert (server.control.updates, server.control.samples_seen, server.control.seconds) == (3, 3, 3.0)
    assert server.timeline.report(3.0)["staleness"] == {"0": 1, "1": 2}
    # r <- 0.9 r + 0.1, three times.
    torch.testing.assert_close(server.running_statistics(), torch.full((2,), 0.271))


def test_steps_on_several_batches_count_each(tmp_path: Path):
    server = built(tmp_path, "algorithm=asgd")
    batches = [Batch(number, 0, torch.zeros(size, dtype=torch.int64)) for number, size in enumerate((2, 1))]
    server.count(server.push(0, {"g": torch.tensor([8.0])}, torch.ones(2), batches), 1.0)
    assert (server.control.updates, server.control.samples_seen) == (1, 3)
    # r <- 0.9² r + 0.1 Σ_j 0.9^(H-j) b_j, here with a sum of 1.
    torch.testing.assert_close(server.running_statistics(), torch.full((2,), 0.1))
    server.push(0, {"g": torch.tensor([8.0])}, torch.zeros(2), batches)
    torch.testing.assert_close(server.running_statistics(), torch.full((2,), 0.081))


def test_barrier_costs_a_full_gradient(tmp_path: Path):
    recorder = Recorder(tmp_path, ABOUT)
    recorder.begin()
    server = built(tmp_path, "algorithm=asysvrg", "algorithm.inner=3", recorder=recorder)
    assert server.leases.quota == 0, "the first snapshot comes before the first update"
    assert not server.leases.lease(0)
    server.end_barrier(now=1.5)
    assert server.leases.quota == 3
    assert server.leases.lease(0)
    assert (server.control.samples_seen, server.control.seconds) == (4, 1.5)
    assert [(r.kind, r.version, r.time) for r in Trace.read(str(tmp_path)).records] == [(BARRIER, 0, 1.5)]


def test_lost_workers_are_counted_and_recorded(tmp_path: Path):
    recorder = Recorder(tmp_path, ABOUT)
    recorder.begin()
    server = built(tmp_path, "algorithm=asgd", recorder=recorder)
    push(server, 0, 8.0, now=1.0)
    server.count_lost(1, now=1.5)
    assert server.workers_lost == 1
    records = Trace.read(str(tmp_path)).records
    assert [(r.kind, r.worker, r.version, r.time) for r in records] == [(LOST, 1, 1, 1.5)]


def test_server_half_is_told_of_a_loss(tmp_path: Path):
    """A sum over workers, as of their momentum, holds no dead worker's share once the next one pulls."""
    server = built(tmp_path, "algorithm=asgd", "algorithm._target_=tests.speaking.Summing")
    push(server, 0, 8.0, now=1.0)
    push(server, 1, 2.0, now=2.0)
    method: Any = server.server
    assert float(method.total) == 10.0
    server.count_lost(0, now=3.0)
    assert float(method.total) == 2.0
    assert method.shares.flatten().tolist() == [0.0, 2.0]


def test_ignored_pushes_make_no_push_staler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = built(tmp_path, "algorithm=asgd")
    method, answers = server.server, iter([False, None, True, None])
    monkeypatch.setattr(method, "push", lambda *push: next(answers))
    for worker in (0, 1):
        server.pull(worker)
    assert [push(server, 0, 8.0, now=1.0), push(server, 0, 8.0, now=2.0)] == [0, 0]
    assert push(server, 1, 8.0, now=3.0) == 1
    server.pull(0)
    state = server.state_dict()
    assert push(server, 0, 8.0, now=4.0) == 0
    # A trace counts pushes, a row updates.
    assert (server.version, server.control.updates, server.columns()) == ([3, 0], 4, {"updates": 3})
    resumed = built(tmp_path, "algorithm=asgd")
    resumed.load_state_dict(state)
    assert resumed.columns() == {"updates": 2}
    # Checkpoints of before: every push was an update.
    resumed.control.updates = 3
    resumed.load_state_dict({key: value for key, value in state.items() if key != "applied"})
    assert resumed.columns() == {"updates": 3}


@pytest.mark.parametrize("recorded", [False, True])
def test_restored_server_goes_on_alike(recorded: bool, tmp_path: Path):
    """Also without a recorder, where the stopped run had one."""
    recorder = Recorder(tmp_path, ABOUT) if recorded else None
    if recorder is not None:
        recorder.begin()
    first = built(tmp_path, "algorithm=asgd", "algorithm.momentum=0.5", recorder=recorder)
    first.leases.lease(0)
    push(first, 0, 8.0, now=1.0)
    first.count_lost(1, now=1.5)
    first.totals += 2.0
    state: dict[str, Any] = first.state_dict()
    second = built(tmp_path, "algorithm=asgd", "algorithm.momentum=0.5")
    assert not second.resumed
    second.load_state_dict(state)
    assert (second.resumed, second.workers_lost, second.leases.held) == (True, 1, {0: [0]})
    assert second.totals.tolist() == [2.0, 2.0, 2.0]
    assert torch.equal(second.statistics, first.statistics)
    for server in (first, second):
        # v = 8/2 + 4 and w = 4 − 8/2, at a rate that the restored velocity has a part in.
        server.server.push(0, {"g": torch.tensor([4.0])}, Step(lr=0.5))
    assert torch.equal(second.weights(), first.weights())
    assert float(second.weights()) != 4.0 - 0.5 * 4.0, "the velocity counts"
