from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.base import Step
from algorithms.dc_ssgd import DCSSGD
from tests.trial import equal, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "run.batch_size=8", "model=mlp")


def combined(gs: np.ndarray) -> dict[str, torch.Tensor]:
    g = torch.from_numpy(gs.copy())
    return {"g": g, "norm": torch.linalg.vector_norm(g, dim=1, keepdim=True)}


def equations_110_111(w: np.ndarray, gs: list[np.ndarray], eta: float, lam: float, decay: float) -> np.ndarray:
    moving = w.copy()
    for g in gs:
        moving = moving - eta * (g + lam * g * g * (moving - w) + decay * w)
    return moving


@pytest.mark.parametrize("lambda0", [0.0, 0.04, 2.0])
def test_step_takes_smallest_gradient_first(lambda0: float):
    random = np.random.default_rng(0)
    w, gs = random.standard_normal(11), random.standard_normal((4, 11)) * np.array([[3.0], [0.5], [2.0], [1.0]])
    method = DCSSGD(lambda0=lambda0, weight_decay=0.1)
    method.start(torch.from_numpy(w.copy()), 0, 4)
    method.apply(combined(gs), Step(lr=0.3))
    order = np.argsort(np.linalg.norm(gs, axis=1))
    assert order.tolist() == [1, 3, 2, 0]
    expected = equations_110_111(w, [gs[j] for j in order], 0.3, lambda0, 0.1)
    np.testing.assert_allclose(method.solution(), expected, rtol=1e-12)
    other = equations_110_111(w, list(gs), 0.3, lambda0, 0.1)
    assert np.allclose(method.solution(), other) == (lambda0 == 0), "the order matters exactly where λ does"


def test_equal_norms_go_by_worker():
    """Gradients (1, 0), (0, 1), (−1, 0) are equally long: in the workers' order, by hand, λ = 1, η = 1."""
    gs = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    method = DCSSGD(lambda0=1.0)
    method.start(torch.tensor([5.0, 5.0], dtype=torch.float64), 0, 3)
    method.apply(combined(gs), Step(lr=1.0))
    # (5, 5) -> (4, 5) -> (4, 4) -> 4 - (-1 + 1 * 1 * (4 - 5)) = 6; the other order would end at 4.
    assert method.solution().tolist() == [6.0, 4.0]


@pytest.mark.parametrize(("second", "grows"), [((0.0, 1.1), True), ((-1.1, 0.0), False)])
def test_distance_grows_unless_steps_turn_back(second: tuple[float, float], grows: bool):
    """Both norms ascend after (1, 0), whose step ends at a distance of 1."""
    method = DCSSGD(lambda0=0.04)
    method.start(torch.zeros(2, dtype=torch.float64), 0, 2)
    method.apply(combined(np.array([(1.0, 0.0), second])), Step(lr=1.0))
    assert (float(method.solution().norm()) > 1) == grows


def test_momentum_is_on_the_mean_compensated_gradient():
    random = np.random.default_rng(1)
    w, v = random.standard_normal(5), np.zeros(5)
    method = DCSSGD(lambda0=1.0, momentum=0.9)
    method.start(torch.from_numpy(w.copy()), 0, 2)
    for _ in range(3):
        gs = random.standard_normal((2, 5)) * np.array([[1.0], [3.0]])
        gs = gs[np.argsort(np.linalg.norm(gs, axis=1))]
        method.apply(combined(gs), Step(lr=0.1))
        v = 0.9 * v + (w - equations_110_111(w, list(gs), 0.1, 1.0, 0.0)) / (2 * 0.1)
        w = w - 2 * 0.1 * v
    np.testing.assert_allclose(method.solution(), w, rtol=1e-12)
    assert set(method.state()) == {"w", "v"}


def test_lambda_grows_as_the_rate_decays():
    gs = np.array([[1.0, 2.0], [3.0, 4.0]])
    results = []
    for method in (
        DCSSGD(lambda0=2.0, lambda_schedule="inverse_lr"),
        DCSSGD(lambda0=20.0),
        DCSSGD(lambda0=2.0),
    ):
        method.start(torch.zeros(2, dtype=torch.float64), 0, 2)
        method.apply(combined(gs), Step(lr=0.01, decay=0.1))
        results.append(method.solution())
    torch.testing.assert_close(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("extra", [(), ("algorithm.momentum=0.9", "algorithm.nesterov=true")])
def test_lambda_zero_is_ssgd_at_m_eta(extra: tuple[str, ...], tmp_path: Path):
    """To rounding, the last step of an epoch with its unequal shares included."""
    options = (*RUN, "cluster.workers=3", "algorithm.weight_decay=0.01", *extra)
    dc = train("algorithm=dc_ssgd", "algorithm.lambda0=0", "schedule.lr=0.02", *options, folder=tmp_path)
    ssgd = train("algorithm=ssgd", "schedule.lr=0.06", *options, folder=tmp_path)
    on = train("algorithm=dc_ssgd", "algorithm.lambda0=2", "schedule.lr=0.02", *options, folder=tmp_path)
    for name, value in ssgd.weights.items():
        torch.testing.assert_close(dc.weights[name], value, rtol=1e-4, atol=1e-6)
    assert not equal(on.weights, dc.weights)


@pytest.mark.parametrize("lambda0", [0.0, 2.0])
def test_one_worker_is_sgd_to_the_bit(lambda0: float, tmp_path: Path):
    options = (*RUN, "algorithm.momentum=0.9")
    one = train("algorithm=dc_ssgd", f"algorithm.lambda0={lambda0}", "cluster.workers=1", *options, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *options, folder=tmp_path).weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda0": -1.0}, r"algorithm\.lambda0=-1\.0: out of range; allowed: lambda0 >= 0"),
        ({"lambda_schedule": "lr"}, r"algorithm\.lambda_schedule=lr: unknown; allowed: constant, inverse_lr"),
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0"),
        ({"nesterov": True}, r"algorithm\.nesterov=true: needs momentum"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DCSSGD(**options)
