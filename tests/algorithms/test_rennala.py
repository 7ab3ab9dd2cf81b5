from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.base import Step
from algorithms.rennala import Rennala
from tests.algorithms.driven import course, start
from tests.trial import equal, train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=8", "run.epochs=2")


class Paper:
    """A step with the mean of B gradients of the current iterate, in NumPy."""

    def __init__(self, b: int, momentum: float, weight_decay: float) -> None:
        self.w = start().astype(np.float64)
        self.v = np.zeros_like(self.w)
        self.b, self.momentum, self.weight_decay = b, momentum, weight_decay
        self.k, self.of = 0, [0, 0, 0]
        self.collected: list[np.ndarray] = []
        self.ignored = 0

    def pull(self, worker: int, lr: float) -> np.ndarray:
        self.of[worker] = self.k
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        if self.of[worker] != self.k:
            self.ignored += 1
            return
        self.collected.append(g)
        if len(self.collected) == self.b:
            self.v = self.momentum * self.v + np.mean(self.collected, axis=0) + self.weight_decay * self.w
            self.w = self.w - lr * self.v
            self.k += 1
            self.collected = []


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.1)])
@pytest.mark.parametrize("b", [1, 2, 3, 5])
def test_updates_match_numpy(b: int, momentum: float, weight_decay: float):
    paper = Paper(b, momentum, weight_decay)
    course(Rennala(gradients=b, momentum=momentum, weight_decay=weight_decay), paper=paper)
    assert paper.ignored > 0
    assert paper.k >= 2


def test_as_many_gradients_as_workers_by_default():
    method = Rennala()
    method.start(torch.ones(4), 3)
    answers = [method.push(0, {"g": torch.ones(4)}, Step(lr=0.1)) for _ in range(4)]
    assert answers == [False, False, True, False]
    assert method.state()["collected"].tolist() == [1]


def test_one_gradient_of_one_worker_is_sgd_to_the_bit(tmp_path: Path):
    options = ("algorithm.momentum=0.9", "algorithm.nesterov=true", "algorithm.weight_decay=0.01")
    one = train("algorithm=rennala", "cluster.workers=1", *RUN, *options, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *RUN, *options, folder=tmp_path).weights)


def test_rows_count_steps_not_gradients(tmp_path: Path):
    run = train("algorithm=rennala", "algorithm.gradients=4", "cluster.workers=1", *RUN, folder=tmp_path)
    # Eighteen batches, of which the last two wait for more.
    assert run.control.updates == 18
    assert run.notes.rows[-1]["updates"] == 4
    assert run.notes.rows[-1]["staleness_max"] == 0


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        (0, r"algorithm\.gradients=0: out of range; allowed: gradients >= 1"),
        (1.5, r"algorithm\.gradients=1\.5: is not a whole number"),
    ],
)
def test_wrong_values_are_refused(gradients: Any, message: str):
    with pytest.raises(ValueError, match=message):
        Rennala(gradients=gradients)
