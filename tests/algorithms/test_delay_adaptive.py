from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.asgd import ASGD
from algorithms.base import Step
from algorithms.delay_adaptive import DelayAdaptive
from tests.algorithms.driven import course, same, start
from tests.trial import equal, train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=16", "run.epochs=2")


class Paper:
    """η M / max(M, τ), or η up to τ_C and then min(η, 1/(4Lτ)), in NumPy."""

    def __init__(self, tau_c: int | None = None, smoothness: float | None = None) -> None:
        self.w = start().astype(np.float64)
        self.tau_c, self.smoothness = tau_c, smoothness

    def pull(self, worker: int, lr: float) -> np.ndarray:
        return self.w

    def push(self, worker: int, g: np.ndarray, lr: float, tau: int) -> None:
        if self.smoothness is None:
            lr = lr * 3 / max(3, tau)
        elif self.tau_c is not None and tau > self.tau_c:
            lr = min(lr, 1 / (4 * self.smoothness * tau))
        self.w = self.w - lr * g


def test_mishchenko_updates_match_numpy():
    adaptive, _ = course(DelayAdaptive(), paper=Paper())
    assert not same(adaptive, course(ASGD())[0])


def test_koloskova_updates_match_numpy():
    given = {"tau_c": 1, "smoothness": 0.9}
    adaptive, _ = course(DelayAdaptive(rule="koloskova", **given), paper=Paper(**given))  # type: ignore[arg-type]
    assert not same(adaptive, course(ASGD())[0])


def test_rates_by_hand():
    method = DelayAdaptive()
    method.workers = 4
    assert [method.rate(Step(lr=0.1, staleness=tau)) for tau in (0, 3, 4, 8)] == [0.1, 0.1, 0.1, 0.05]
    method = DelayAdaptive(rule="koloskova", smoothness=1.0)
    method.workers = 4
    # Up to as many as there are workers, then 1/4τ where that is less.
    assert [method.rate(Step(lr=0.1, staleness=tau)) for tau in (4, 5)] == [0.1, 0.05]
    assert method.rate(Step(lr=0.01, staleness=5)) == 0.01


@pytest.mark.parametrize("rule", [{}, {"rule": "koloskova", "smoothness": 9.0}])
def test_short_delays_are_asgd_to_the_bit(rule: dict[str, Any]):
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    visits = (0, 1, 2) * 4
    assert same(course(DelayAdaptive(**options, **rule), visits=visits)[0], course(ASGD(**options), visits=visits)[0])


def test_one_worker_is_sgd_to_the_bit(tmp_path: Path):
    options = ("algorithm.momentum=0.9", "algorithm.nesterov=true", "algorithm.weight_decay=0.01")
    one = train("algorithm=delay_adaptive", "cluster.workers=1", *RUN, *options, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *RUN, *options, folder=tmp_path).weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "zhang"}, r"algorithm\.rule=zhang: unknown; allowed: mishchenko, koloskova"),
        ({"smoothness": 1.0}, r"algorithm\.smoothness=1\.0: is of rule=koloskova; allowed: null"),
        ({"tau_c": 3}, r"algorithm\.tau_c=3: is of rule=koloskova"),
        ({"rule": "koloskova"}, r"algorithm\.smoothness=None: .*; allowed: smoothness > 0"),
        ({"rule": "koloskova", "smoothness": 0}, r"algorithm\.smoothness=0: .*; allowed: smoothness > 0"),
        ({"rule": "koloskova", "smoothness": -1.0}, r"algorithm\.smoothness=-1\.0: out of range"),
        ({"rule": "koloskova", "smoothness": 1.0, "tau_c": -1}, r"algorithm\.tau_c=-1: out of range"),
        ({"rule": "koloskova", "smoothness": 1.0, "tau_c": 1.5}, r"algorithm\.tau_c=1\.5: is not a whole number"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DelayAdaptive(**options)
