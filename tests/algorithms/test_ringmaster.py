import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Step
from algorithms.ringmaster import Ringmaster
from tests.algorithms.driven import course, same, start
from tests.trial import QuadraticOracle, Trial, equal, train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=4", "run.epochs=2")
ALIKE = ("cluster.compute.distribution=gamma", "cluster.compute.cv_task=0.1", "cluster.compute.cv_machine=0.6")


class Paper:
    """x ← x − γ g if the delay in iterates is below R, in NumPy; it counts them itself."""

    def __init__(self, threshold: int) -> None:
        self.w = start().astype(np.float64)
        self.threshold = threshold
        self.k, self.of = 0, [0, 0, 0]

    def pull(self, worker: int, lr: float) -> np.ndarray:
        self.of[worker] = self.k
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        assert tau == self.k - self.of[worker]
        if self.k - self.of[worker] < self.threshold:
            self.w = self.w - lr * g
            self.k += 1


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_updates_match_numpy(threshold: int):
    paper = Paper(threshold)
    course(Ringmaster(threshold=threshold), paper=paper)
    assert 3 < paper.k < 15, "some gradients are ignored"


def test_no_threshold_is_asgd_to_the_bit():
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    asgd, _ = course(ASGD(**options))
    assert same(course(Ringmaster(threshold=None, **options))[0], asgd)
    assert same(course(Ringmaster(threshold=99, **options))[0], asgd)


def test_ignored_gradient_changes_nothing():
    method = Ringmaster(threshold=2, momentum=0.9, weight_decay=0.1)
    method.start(torch.ones(4), 2)
    assert method.push(0, {"g": torch.ones(4)}, Step(lr=0.1)) is not False
    before = {name: tensor.clone() for name, tensor in method.state().items()}
    assert method.push(1, {"g": torch.ones(4)}, Step(lr=0.1, staleness=2)) is False
    assert equal(method.state(), before)


def test_one_worker_is_sgd_to_the_bit(tmp_path: Path):
    options = ("algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
    one = train("algorithm=ringmaster", "algorithm.threshold=1", "cluster.workers=1", *RUN, *options, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *RUN, *options, folder=tmp_path).weights)


def test_eight_workers_go_on_below_the_threshold(tmp_path: Path):
    """Uneven workers: the slow ones' gradients are ignored, the fast ones' count to the end."""
    run = train("algorithm=ringmaster", "algorithm.threshold=5", "cluster.workers=8", *RUN, *ALIKE, folder=tmp_path)
    updates = [row["updates"] for row in run.notes.rows]
    pushes = run.control.updates
    assert updates[0] < updates[-1] < pushes
    histogram = run.executor.timeline.report(run.control.seconds)["staleness"]
    assert sum(count for delay, count in histogram.items() if int(delay) < 5) == updates[-1]


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        (0, r"algorithm\.threshold=0: out of range; allowed: threshold >= 1"),
        (2.5, r"algorithm\.threshold=2\.5: is not a whole number"),
    ],
)
def test_wrong_values_are_refused(threshold: Any, message: str):
    with pytest.raises(ValueError, match=message):
        Ringmaster(threshold=threshold)


def test_stops_without_a_threshold_are_asgd_to_the_bit(tmp_path: Path):
    given = ("cluster.workers=8", *RUN, *ALIKE, "algorithm.momentum=0.5")
    asgd = train("algorithm=asgd", *given, folder=tmp_path)
    for threshold in ("null", "99"):
        run = train("algorithm=ringmaster_stops", f"algorithm.threshold={threshold}", *given, folder=tmp_path)
        assert run.sha256 == asgd.sha256
        assert run.notes.rows == [row | {"stopped": 0} for row in asgd.notes.rows]
        assert run.executor.timeline.report(1.0) == asgd.executor.timeline.report(1.0)


@pytest.mark.parametrize("threshold", [1, 3, 5])
def test_eight_workers_with_stops_stay_below_the_threshold(threshold: int, tmp_path: Path):
    given = (f"algorithm.threshold={threshold}", "cluster.workers=8", *RUN, *ALIKE)
    run = train("algorithm=ringmaster_stops", *given, folder=tmp_path)
    last = run.notes.rows[-1]
    report = run.executor.timeline.report(run.control.seconds)
    assert max(map(int, report["staleness"])) == threshold - 1
    # No gradient is ignored, and every batch is used once.
    assert (last["updates"], run.control.updates, last["epoch"]) == (36, 36, 2.0)
    assert last["stopped"] > 0
    assert any(row.get("stopped", 0) > 0 for row in report["workers"])
    without = train("algorithm=ringmaster", *given, folder=tmp_path)
    assert without.notes.rows[-1]["updates"] < 36, "without stops gradients are ignored"


QUADRATIC = (
    *("model=linear", "dataset.limit_train=8", "run.batch_size=1", "run.epochs=1", "schedule.lr=0.5"),
    *("algorithm.weight_decay=0", "cluster.compute.distribution=constant"),
    # Gradients take 1, 2 and 4 virtual seconds.
    *("cluster.workers=3", "cluster.compute.seconds=4", "cluster.compute.speeds=[4,2,1]"),
)
# Worked out with pencil and paper, with R = 2. All pull at 0. Worker 0 pushes at 1 and 2: two updates, so worker 1,
# which would be done at that very second, and worker 2 stop, and pull anew at 2. Worker 0 pushes at 3 and 4, and both
# stop again, and so at 6: until then it does the six batches that the others do not hold, and nothing is left for it.
# What they hold is done by worker 1 at 8 and worker 2 at 10.
PUSHES = [(0, 1.0, 0), (0, 2.0, 0), (0, 3.0, 0), (0, 4.0, 0), (0, 5.0, 0), (0, 6.0, 0), (1, 8.0, 0), (2, 10.0, 1)]
LEASED = [0, 3, 4, 5, 6, 7, 1, 2]
WEIGHTS = [32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.0]
"""w after each push: half of what was pulled is subtracted; the last two pulled 1."""


def played(*overrides: str, folder: Path) -> tuple[Trial, list[tuple[int, float, int]], list[float], list[int]]:
    """Run on w²/2 and return the trial, its pushes, the weights after each, and the samples that were computed on."""
    oracle = QuadraticOracle(64.0)
    trial = Trial("algorithm=ringmaster_stops", *QUADRATIC, *overrides, folder=folder, oracle=oracle)
    server: Any = trial.executor
    pushes, weights, take = list[tuple[int, int]](), list[float](), server.server.push

    def push(worker: int, message: Any, step: Any) -> Any:
        taken = take(worker, message, step)
        pushes.append((worker, step.staleness))
        weights.append(float(server.server.w))
        return taken

    server.server.push = push
    seconds: list[float] = []
    trial.notes.on_update = lambda: seconds.append(trial.control.seconds)
    trial.run()
    found = [(worker, at, tau) for (worker, tau), at in zip(pushes, seconds, strict=True)]
    return trial, found, weights, [ids[0] for _, ids in oracle.asked]


def test_stops_of_three_workers_worked_out_by_hand(tmp_path: Path):
    trial, pushes, weights, asked = played("algorithm.threshold=2", folder=tmp_path)
    assert pushes == PUSHES
    assert weights == WEIGHTS
    assert asked == [int(trial.components.batches.batch(number).ids) for number in LEASED]
    assert trial.notes.rows[-1]["stopped"] == 6
    shares = trial.executor.timeline.report(10.0)["workers"]
    assert [row["gradients"] for row in shares] == [6, 1, 1]
    assert [row["utilization"] for row in shares] == [6 / 10, 2 / 10, 4 / 10]
    assert [row.get("stopped") for row in shares] == [None, 6 / 10, 6 / 10]
    spans = [json.loads(line) for line in (tmp_path / "timeline.jsonl").read_text().splitlines()]
    told = [(span["start"], span["end"]) for span in spans if (span["worker"], span["what"]) == (2, "stopped")]
    assert told == [(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)]


def test_stops_of_eight_workers_worked_out_by_hand(tmp_path: Path):
    """Gradients take 1, 2, 4 and five times 8 s; R = 3, and sixteen batches, of which workers 2 to 7 hold six.

    Every two seconds worker 0 makes two updates and worker 1 one, so at 2, 4 and 6 the other six stop. At 7 nothing is
    left for the first two. Worker 2 pushes at 10. Worker 3 does at 14, and with this third update since their pull 4 to
    7, who would be done at that second, stop; 7 once more at 22, when 4, 5 and 6 have pushed.
    """
    eight = ("cluster.workers=8", "cluster.compute.seconds=8", "cluster.compute.speeds=[8,4,2,1,1,1,1,1]")
    trial, pushes, _, _ = played("algorithm.threshold=3", *eight, "dataset.limit_train=16", folder=tmp_path)
    assert pushes == [
        *((0, 1.0, 0), (0, 2.0, 0), (1, 2.0, 2)),
        *((0, 3.0, 1), (0, 4.0, 0), (1, 4.0, 2)),
        *((0, 5.0, 1), (0, 6.0, 0), (1, 6.0, 2), (0, 7.0, 1)),
        *((2, 10.0, 1), (3, 14.0, 2), (4, 22.0, 0), (5, 22.0, 1), (6, 22.0, 2), (7, 30.0, 0)),
    ]
    assert trial.notes.rows[-1]["stopped"] == 6 + 6 + 6 + 4 + 1
    dropped = [row.get("stopped", 0) * 30 for row in trial.executor.timeline.report(30.0)["workers"]]
    assert dropped == pytest.approx([0, 0, 6, 6, 14, 14, 14, 22])


def test_orders_travel_and_who_is_done_by_then_has_pushed(tmp_path: Path):
    """Messages of 4 bytes take 0.5 + 0.5 s, those without tensors 0.5; R = 1.

    Requests are there at 0.5, weights at 1.5, and gradients done at 2.5, 3.5 and 5.5. Worker 0 pushes at 3.5: the order
    is there at 4, when worker 1 is done and its push on its way until 4.5, where it is ignored; worker 2 stops, and its
    request comes at 4.5 too, right after. Worker 1 had the batch's fourth gradient from then on.
    """
    slow = ("cluster.network.latency=0.5", "cluster.network.bandwidth=8")
    trial, pushes, weights, _ = played("algorithm.threshold=1", *slow, folder=tmp_path)
    assert pushes[:3] == [(0, 3.5, 0), (1, 4.5, 1), (0, 6.5, 0)]
    assert weights[:3] == [32.0, 32.0, 16.0]
    spans = [json.loads(line) for line in (tmp_path / "timeline.jsonl").read_text().splitlines()]
    told = [(span["what"], span["start"], span["end"]) for span in spans if span["worker"] == 2][:6]
    assert told == [
        *(("transfer", 0.5, 1.5), ("stopped", 1.5, 4.0), ("transfer", 4.0, 4.5), ("wait", 4.5, 4.5)),
        *(("transfer", 4.5, 5.5), ("stopped", 5.5, 7.0)),
    ]
    assert trial.control.epoch == 1.0


@pytest.mark.parametrize(
    ("stop_after", "processes"), [(1, 1), (2, 1), (3, 1), (4, 1), (9, 1), (20, 1), (35, 1), (2, 2), (9, 2)]
)
def test_resume_is_exact_also_while_workers_stop(stop_after: int, processes: int, tmp_path: Path):
    given = ("algorithm=ringmaster_stops", "algorithm.threshold=2", "cluster.workers=4", *RUN, *ALIKE)
    given = (*given, "cluster.network.latency=0.1", "model.widths=[8]", f"run.compute_processes={processes}")
    folders = [tmp_path / name for name in ("whole", "stopped")]
    for folder in folders:
        folder.mkdir()
    whole = train(*given, "run.compute_processes=1", folder=folders[0])
    assert whole.notes.rows[-1]["stopped"] > 5
    stopped = Trial(*given, folder=folders[1], stop_after=stop_after)
    continued = Trial(*given, folder=folders[1]).resume(stopped.stopped()).run()
    assert continued.sha256 == whole.sha256
    assert stopped.notes.rows + continued.notes.rows == whole.notes.rows
    assert (folders[1] / "timeline.jsonl").read_text() == (folders[0] / "timeline.jsonl").read_text()


def test_who_was_told_to_stop_is_saved(tmp_path: Path):
    """Worker 0 pushes at 1.3 s and worker 1 at 2.3 s: then the order to worker 2 is on its way."""
    given = ("algorithm=ringmaster_stops", "algorithm.threshold=2", *QUADRATIC, "cluster.network.latency=0.1")
    stopped = Trial(*given, folder=tmp_path, oracle=QuadraticOracle(64.0), stop_after=2)
    state = stopped.stopped()
    executor: Any = Trial(*given, folder=tmp_path, oracle=QuadraticOracle(64.0)).resume(state).executor
    assert executor.stopping == {2}
    assert executor.events.stopping == {2}
