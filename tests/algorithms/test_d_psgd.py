from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.d_psgd import DPSGD
from runner.config.errors import InputError
from runner.train.build import build_run, check_run
from tests.trial import Trial, compose, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "run.batch_size=8", "schedule.lr=0.05")


@pytest.mark.parametrize("order", ["average_first", "step_first"])
@pytest.mark.parametrize(("graph", "row"), [("ring", [1 / 3, 1 / 3, 0, 1 / 3]), ("[[0,1],[1,2],[1,3]]", None)])
def test_steps_are_those_of_the_paper(graph: str, row: list[float] | None, order: str, tmp_path: Path):
    """Four workers, from the gradients that they were given, in NumPy."""
    options = ("algorithm=d_psgd", f"algorithm.graph={graph}", f"algorithm.order={order}", "algorithm.weight_decay=0.1")
    trial = Trial(*options, "algorithm.momentum=0.9", "model=linear", *RUN, "cluster.workers=4", folder=tmp_path)
    # A ring's rows are one row, turned; of a star with worker 1 in the middle each edge weighs a quarter.
    star = [[3, 1, 0, 0], [1, 1, 1, 1], [0, 1, 3, 0], [0, 1, 0, 3]]
    mixing = np.array(star) / 4 if row is None else np.stack([np.roll(row, worker) for worker in range(4)])
    oracle = trial.components.oracle
    asked = trial.watched_gradients()
    x = np.stack([oracle.replica.weights.numpy().astype(np.float64)] * 4)
    v = np.zeros_like(x)
    trial.run()
    # Two steps of 32 samples and one of 6 an epoch.
    assert len(asked) == 4 * 6
    for k in range(6):
        samples = sum(asked[4 * k + worker][2] for worker in range(4))
        step = np.zeros_like(x)
        for worker in range(4):
            w, g, size = asked[4 * k + worker]
            np.testing.assert_allclose(w, x[worker], rtol=1e-4, atol=1e-6)
            v[worker] = 0.9 * v[worker] + (g + 0.1 * x[worker]) * (4 * size / samples)
            step[worker] = 0.05 * v[worker]
        x = mixing @ x - step if order == "average_first" else mixing @ (x - step)
    np.testing.assert_allclose(trial.executor.weights(), x.mean(0), rtol=1e-4, atol=1e-6)
    assert np.abs(x - x.mean(0)).max() > 1e-3


def test_complete_graph_is_local_sgd_to_the_bit(tmp_path: Path):
    options = ("model=mlp", *RUN, "cluster.workers=3", "algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
    complete = ("algorithm.graph=complete", "algorithm.order=step_first")
    gossip = train("algorithm=d_psgd", *complete, *options, folder=tmp_path)
    local = train("algorithm=local_sgd", "algorithm.tau=1", *options, folder=tmp_path)
    assert gossip.sha256 == local.sha256
    # In the other order a worker's gradient is at weights of its own.
    other = train("algorithm=d_psgd", complete[0], *options, folder=tmp_path)
    assert other.sha256 != local.sha256


@pytest.mark.parametrize("order", ["average_first", "step_first"])
def test_one_worker_is_sgd_to_the_bit(order: str, tmp_path: Path):
    options = ("model=mlp", *RUN, "algorithm.momentum=0.9", "algorithm.nesterov=true", "algorithm.weight_decay=0.01")
    one = train("algorithm=d_psgd", "cluster.workers=1", f"algorithm.order={order}", *options, folder=tmp_path)
    assert one.sha256 == train("algorithm=sgd", *options, folder=tmp_path).sha256


def test_what_cannot_be_is_refused_before_the_run():
    with pytest.raises(ValueError, match=r"algorithm\.order=last: unknown; allowed: average_first, step_first"):
        DPSGD(order="last")
    edges = compose("algorithm=d_psgd", "algorithm.graph=[[0,1],[1,2]]", "model=linear", "cluster.workers=4")
    for refused in (build_run, lambda cfg: check_run(cfg, {})):
        check: Any = refused
        with pytest.raises(InputError, match=r"algorithm\.graph=.*: no way leads from worker 0 to worker 3; allowed: "):
            check(edges)


def test_what_is_compared_follows_the_order():
    assert DPSGD().compared() == {"D-PSGD": (1, 1)}
    assert DPSGD(order="step_first").compared() == {"D-PSGD": (1, 0)}
