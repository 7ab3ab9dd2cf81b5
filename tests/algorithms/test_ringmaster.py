from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Step
from algorithms.ringmaster import Ringmaster
from tests.algorithms.driven import course, same, start
from tests.trial import equal, train

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
