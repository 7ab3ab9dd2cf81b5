from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD, GradientWorker
from algorithms.base import Batch, Step
from algorithms.blockwise import BLOCK
from tests.trial import equal, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "schedule.lr=0.05", "run.batch_size=16")
N = BLOCK + 13
"""One block and a tail."""


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("staleness", ["plain", "aware"])
def test_updates_are_those_of_the_paper(staleness: str, momentum: float, nesterov: bool, weight_decay: float):
    random = np.random.default_rng(0)
    w, v = random.standard_normal(N).astype(np.float32), np.zeros(N)
    method = ASGD(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, staleness=staleness)
    method.start(torch.from_numpy(w.copy()), 3)
    w = w.astype(np.float64)
    for worker, tau in ((0, 0), (2, 1), (1, 3), (0, 2)):
        g = random.standard_normal(N).astype(np.float32)
        method.push(worker, {"g": torch.from_numpy(g.copy())}, Step(lr=0.3, staleness=tau))
        d = g + weight_decay * w
        v = momentum * v + d
        step = d + momentum * v if nesterov else v
        w = w - (0.3 / max(1, tau) if staleness == "aware" else 0.3) * step
        np.testing.assert_allclose(method.w, w, rtol=0, atol=3e-6)


def test_pushed_gradient_stays_unchanged():
    method = ASGD(momentum=0.9, nesterov=True, weight_decay=0.1)
    method.start(torch.ones(5), 1)
    g = torch.full((5,), 2.0)
    method.push(0, {"g": g}, Step(lr=0.3))
    assert torch.equal(g, torch.full((5,), 2.0))


PLAIN, HEAVY_BALL = (), ("algorithm.momentum=0.9", "algorithm.weight_decay=0.05")
NESTEROV = ("algorithm.momentum=0.9", "algorithm.nesterov=true")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        *(("mlp", options) for options in (PLAIN, HEAVY_BALL, NESTEROV)),
        *(pytest.param("resnet8", options, marks=pytest.mark.slow) for options in (PLAIN, NESTEROV)),
        ("resnet8", HEAVY_BALL),
    ],
)
def test_one_worker_is_sgd_to_the_bit(model: str, options: tuple[str, ...], tmp_path: Path):
    overrides = (f"model={model}", *RUN, *options)
    one = train("algorithm=asgd", "cluster.workers=1", *overrides, folder=tmp_path)
    reference = train("algorithm=sgd", *overrides, folder=tmp_path)
    assert equal(one.weights, reference.weights)
    assert one.control.updates == reference.control.updates == 10
    assert [row["test_loss"] for row in one.notes.rows] == pytest.approx(
        [row["test_loss"] for row in reference.notes.rows]
    )
    two = train("algorithm=asgd", "cluster.workers=2", *overrides, folder=tmp_path)
    assert not equal(two.weights, reference.weights)


def test_staleness_aware_changes_only_several_workers(tmp_path: Path):
    def weights(workers: int, staleness: str) -> str:
        given = ("algorithm=asgd", f"cluster.workers={workers}", f"algorithm.staleness={staleness}")
        # Constant times make every staleness of two workers 1 or 0; three reach 2.
        return train("model=mlp", *RUN, "cluster.compute.distribution=constant", *given, folder=tmp_path).sha256

    assert weights(1, "aware") == weights(1, "plain")
    assert weights(3, "aware") != weights(3, "plain")


def test_worker_pushes_its_gradient_alone():
    oracle: Any = SimpleNamespace(gradient=lambda w, batch: 2 * w)
    w = torch.arange(3.0)
    message = GradientWorker().work(oracle, {"w": w}, Batch(0, 0, torch.arange(1)))
    assert message.keys() == {"g"}
    assert torch.equal(message["g"], 2 * w)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0: out of range; allowed: 0 <= momentum < 1"),
        ({"weight_decay": -1e-4}, r"algorithm\.weight_decay=-0\.0001"),
        ({"nesterov": True}, r"algorithm\.nesterov=true: needs momentum"),
        ({"staleness": "fresh"}, r"algorithm\.staleness=fresh: unknown; allowed: plain, aware"),
    ],
)
def test_wrong_values_are_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ASGD(**options)
