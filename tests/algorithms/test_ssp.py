from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Step
from algorithms.ssp import SSP
from tests.algorithms.driven import WORKERS, course, same, start
from tests.trial import QuadraticOracle, Trial, equal, train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=4", "run.epochs=2")
ALIKE = ("cluster.compute.distribution=gamma", "cluster.compute.cv_task=0.1", "cluster.compute.cv_machine=0.6")
IN_TURN = tuple(range(WORKERS)) * 5
"""Pushes of workers that are equally fast."""


class Paper:
    """Ho et al. in NumPy: gradients of iterations one after the other."""

    def __init__(self) -> None:
        self.w = start().astype(np.float64)

    def pull(self, worker: int, lr: float) -> np.ndarray:
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        self.w = self.w - lr * g


@pytest.mark.parametrize("slack", [0, 2, None])
def test_updates_match_numpy(slack: int | None):
    course(SSP(slack=slack), paper=Paper())


def test_update_is_that_of_asgd_to_the_bit():
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "staleness": "aware"}
    assert same(course(SSP(slack=0, **options))[0], course(ASGD(**options))[0])


def admitted(method: SSP) -> list[int]:
    return [worker for worker in range(method.workers) if method.admits(worker)]


def push(method: SSP, *workers: int) -> None:
    for worker in workers:
        method.push(worker, {"g": torch.ones(4)}, Step(lr=0.1))


def test_who_is_admitted_worked_out_by_hand():
    method = SSP(slack=1)
    method.start(torch.ones(4), 3)
    assert admitted(method) == [0, 1, 2]
    push(method, 0)  # c = 1, 0, 0
    assert admitted(method) == [0, 1, 2]
    push(method, 0)  # 2, 0, 0
    assert admitted(method) == [1, 2]
    push(method, 1)  # 2, 1, 0
    assert admitted(method) == [1, 2]
    push(method, 2)  # 2, 1, 1
    assert admitted(method) == [0, 1, 2]


def test_a_lost_worker_holds_up_nobody_and_comes_back_at_the_slowest():
    method = SSP(slack=0)
    method.start(torch.ones(4), 3)
    push(method, 0, 1, 0)  # 2, 1, 0
    assert admitted(method) == [2]
    method.lost(2)
    assert admitted(method) == [1, 2]
    push(method, 1)  # 2, 2, -
    assert admitted(method) == [0, 1, 2], "a lost one too, if it asks in a run that is resumed"
    method.pull(2)
    assert method.clocks.tolist() == [2, 2, 2]
    push(method, 0)
    assert admitted(method) == [1, 2]
    method.lost(1)
    method.lost(0)
    method.lost(2)
    method.pull(0)
    assert admitted(method) == [0, 1, 2]


def test_one_worker_is_sgd_to_the_bit(tmp_path: Path):
    options = ("algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
    one = train("algorithm=ssp", "algorithm.slack=0", "cluster.workers=1", *RUN, *options, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *RUN, *options, folder=tmp_path).weights)


def ahead(slack: int | None, *overrides: str, folder: Path) -> tuple[Trial, list[int]]:
    """Train with eight uneven workers; return by how many iterations each pull was ahead of the slowest worker."""
    given = ("algorithm=ssp", f"algorithm.slack={'null' if slack is None else slack}", "cluster.workers=8")
    trial = Trial(*given, *overrides, folder=folder)
    server: Any = trial.executor
    pull, found = server.server.pull, list[int]()

    def watched(worker: int) -> Any:
        found.append(int(server.server.clocks[worker] - server.server.clocks.min()))
        return pull(worker)

    server.server.pull = watched
    return trial.run(), found


@pytest.mark.parametrize("slack", [0, 1, 3])
def test_eight_workers_are_never_more_than_s_ahead(slack: int, tmp_path: Path):
    trial, found = ahead(slack, *RUN, *ALIKE, folder=tmp_path)
    assert max(found) == slack
    assert (trial.control.updates, trial.control.epoch) == (36, 2.0), "every batch is done once"
    assert max(ahead(None, *RUN, *ALIKE, folder=tmp_path)[1]) > 3, "the speeds differ"


@pytest.mark.parametrize("slack", ["null", "99"])
def test_without_a_bound_it_is_asgd_to_the_bit(slack: str, tmp_path: Path):
    given = ("cluster.workers=8", *RUN, *ALIKE, "algorithm.momentum=0.5")
    ssp = train("algorithm=ssp", f"algorithm.slack={slack}", *given, folder=tmp_path)
    asgd = train("algorithm=asgd", *given, folder=tmp_path)
    assert ssp.sha256 == asgd.sha256
    assert ssp.notes.rows == asgd.notes.rows


class Bulk(ASGD):
    """ASGD with a barrier after a gradient of each of eight workers, at which they pull anew."""

    barrier_every = 8


def test_no_slack_is_a_synchronous_order_to_the_bit(tmp_path: Path):
    given = ("cluster.workers=8", *RUN, *ALIKE, "algorithm.momentum=0.5", "cluster.network.latency=0.1")
    ssp = train("algorithm=ssp", "algorithm.slack=0", *given, folder=tmp_path)
    bulk = train("algorithm=asgd", "algorithm._target_=tests.algorithms.test_ssp.Bulk", *given, folder=tmp_path)
    assert ssp.sha256 == bulk.sha256
    assert ssp.control.seconds == bulk.control.seconds
    assert ssp.notes.rows == bulk.notes.rows
    pushes = ssp.executor.timeline.report(1.0)["staleness"]
    # 36 batches: four rounds of eight, and one of four.
    assert pushes == {str(tau): 5 if tau < 4 else 4 for tau in range(8)}


QUADRATIC = (
    *("model=linear", "dataset.limit_train=8", "run.batch_size=1", "run.epochs=1", "schedule.lr=0.5"),
    *("algorithm.weight_decay=0", "cluster.compute.distribution=constant"),
    # Gradients take 1, 2 and 4 virtual seconds.
    *("cluster.workers=3", "cluster.compute.seconds=4", "cluster.compute.speeds=[4,2,1]"),
)
# Worked out with pencil and paper, with s = 1. All pull at 0. Worker 0 pushes at 1 and is admitted (1 ahead), pushes at
# 2 and is not (2 ahead). Worker 1 pushes at 2 and is admitted, pushes at 4 and is not. Worker 2 pushes at 4: the
# slowest has completed 1, and all three are admitted, for the last three batches.
PUSHES = [(0, 1.0), (0, 2.0), (1, 2.0), (1, 4.0), (2, 4.0), (0, 5.0), (1, 6.0), (2, 8.0)]
LEASED = [0, 3, 1, 4, 2, 5, 6, 7]
"""Numbers of the batches in the order of the pushes: 0 to 2 first, 3 to worker 0 at 1, 4 to worker 1 at 2, then by
number."""
WEIGHTS = [32.0, 16.0, -16.0, -8.0, -40.0, -20.0, 0.0, 20.0]
"""w after each push: half of what was pulled is subtracted: 64, 32, 64, -16, 64, and three times -40."""


def test_three_workers_worked_out_by_hand(tmp_path: Path):
    oracle = QuadraticOracle(64.0)
    trial = Trial("algorithm=ssp", "algorithm.slack=1", *QUADRATIC, folder=tmp_path, oracle=oracle)
    server: Any = trial.executor
    pushes, weights, take = list[Any](), list[float](), server.server.push

    def push(worker: int, message: Any, step: Any) -> None:
        take(worker, message, step)
        pushes.append(worker)
        weights.append(float(server.server.w))

    server.server.push = push
    seconds: list[float] = []
    trial.notes.on_update = lambda: seconds.append(trial.control.seconds)
    trial.run()
    assert list(zip(pushes, seconds, strict=True)) == PUSHES
    assert weights == WEIGHTS
    order = [int(trial.components.batches.batch(number).ids) for number in range(8)]
    assert [ids[0] for _, ids in oracle.asked] == [order[number] for number in LEASED]
    shares = trial.executor.timeline.report(8.0)["workers"]
    assert [row["utilization"] for row in shares] == [3 / 8, 6 / 8, 1.0]
    # Worker 0 waits from 2 to 4 and from 5 to 8, worker 1 from 6 to 8: all for worker 2.
    assert [row["waiting"] for row in shares] == [5 / 8, 2 / 8, 0.0]
    assert Counter(pushes) == {0: 3, 1: 3, 2: 2}


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 9, 20])
def test_resume_is_exact_also_while_workers_wait(stop_after: int, tmp_path: Path):
    given = ("algorithm=ssp", "algorithm.slack=1", "cluster.workers=4", *RUN, *ALIKE)
    folders = [tmp_path / name for name in ("whole", "stopped")]
    for folder in folders:
        folder.mkdir()
    whole = train(*given, folder=folders[0])
    stopped = Trial(*given, folder=folders[1], stop_after=stop_after)
    continued = Trial(*given, folder=folders[1]).resume(stopped.stopped()).run()
    assert continued.sha256 == whole.sha256
    assert stopped.notes.rows + continued.notes.rows == whole.notes.rows
    told = [(folder / "timeline.jsonl").read_text() for folder in folders]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("slack", "message"),
    [
        (-1, r"algorithm\.slack=-1: out of range; allowed: slack >= 0"),
        (2.5, r"algorithm\.slack=2\.5: is not a whole number"),
    ],
)
def test_wrong_values_are_refused(slack: Any, message: str):
    with pytest.raises(ValueError, match=message):
        SSP(slack=slack)
