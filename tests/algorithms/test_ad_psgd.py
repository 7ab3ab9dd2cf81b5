from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.ad_psgd import ADPSGD
from algorithms.base import Step
from runner.config.errors import InputError
from runner.train.build import build_run
from tests.algorithms.driven import VISITS, WORKERS, N, rate, start
from tests.trial import QuadraticOracle, Trial, compose, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "run.batch_size=8", "schedule.lr=0.05")


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_are_those_of_the_paper(nesterov: bool):
    """In NumPy and float64, on a ring, with the neighbours that the generator draws."""
    method = ADPSGD(momentum=0.5, nesterov=nesterov, weight_decay=0.1)
    method.start(torch.from_numpy(start()).double(), WORKERS)
    x, v = np.stack([start().astype(np.float64)] * WORKERS), np.zeros((WORKERS, N))
    random, held = np.random.default_rng(0), [method.pull(worker)["w"].clone() for worker in range(WORKERS)]
    drawn = set()
    for number, worker in enumerate(VISITS):
        g = 0.5 * held[worker] + torch.from_numpy(random.standard_normal(N))
        torch.manual_seed(number)
        other = [m for m in range(WORKERS) if m != worker][int(torch.randint(2, ()))]
        drawn.add((worker, other))
        torch.manual_seed(number)
        method.push(worker, {"g": g}, rate(number))
        x[worker] = x[other] = (x[worker] + x[other]) / 2
        d = g.numpy() + 0.1 * x[worker]
        v[worker] = 0.5 * v[worker] + d
        x[worker] = x[worker] - rate(number).lr * (d + 0.5 * v[worker] if nesterov else v[worker])
        np.testing.assert_allclose(method.x, x, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(method.solution(), x.mean(0), rtol=1e-9, atol=1e-9)
        held[worker] = method.pull(worker)["w"].clone()
    assert len(drawn) > 3, "each worker has both neighbours at times"


def test_a_schedule_by_hand(tmp_path: Path):
    """On a line of three, whose ends need 1 and 2 s for a gradient and have one neighbour, in which 100 s pass."""
    given = ("algorithm=ad_psgd", "algorithm.graph=[[0,1],[1,2]]", "algorithm.weight_decay=0", "model=linear")
    clock = ("cluster.compute.distribution=constant", "cluster.compute.seconds=2", "cluster.compute.speeds=[2,0.02,1]")
    size = ("dataset.limit_train=14", "run.batch_size=2", "run.epochs=1", "schedule.lr=0.25", "cluster.workers=3")
    trial = Trial(*given, *clock, *size, folder=tmp_path, oracle=QuadraticOracle(16.0))
    seen: list[tuple[float, list[float]]] = []
    executor: Any = trial.executor
    trial.notes.on_update = lambda: seen.append((trial.control.seconds, executor.server.x.flatten().tolist()))
    trial.run()
    assert seen[:6] == [
        (1.0, [12.0, 16.0, 16.0]),
        (2.0, [11.0, 14.0, 16.0]),
        # The gradient at 16 is applied after an average with the 14 that the other end has left.
        (2.0, [11.0, 15.0, 11.0]),
        (3.0, [10.25, 13.0, 11.0]),
        (4.0, [9.0625, 11.625, 11.0]),
        (4.0, [9.0625, 11.3125, 8.5625]),
    ]
    assert seen[6][0] == 100.0
    assert trial.executor.timeline.staleness_since_last()[1] == 0, "the last row has asked"
    assert trial.notes.rows[-1]["staleness_max"] == 6


def test_one_worker_is_sgd_to_the_bit(tmp_path: Path):
    options = ("model=mlp", *RUN, "algorithm.momentum=0.9", "algorithm.nesterov=true", "algorithm.weight_decay=0.01")
    one = train("algorithm=ad_psgd", "cluster.workers=1", *options, folder=tmp_path)
    assert one.sha256 == train("algorithm=sgd", *options, folder=tmp_path).sha256


def test_a_lost_workers_weights_are_left_out():
    method = ADPSGD(graph=[[0, 1], [1, 2]], momentum=0.5)
    method.start(torch.zeros(1), 3)
    for worker, g in enumerate((3.0, 6.0, 9.0)):
        method.update_blockwise(method.x[worker], torch.tensor([g]), method.v[worker], lr=1.0)  # type: ignore[index]
    assert method.solution().tolist() == [-6.0]
    method.lost(1)
    assert method.solution().tolist() == [-6.0]
    method.push(0, {"g": torch.tensor([1.0])}, Step(lr=1.0))
    # Nobody is left to average with: v = 1.5 + 1, and the others stay.
    assert method.x.flatten().tolist() == [-5.5, -6.0, -9.0]
    saved = {name: tensor.clone() for name, tensor in method.state().items()}
    again = ADPSGD(graph=[[0, 1], [1, 2]], momentum=0.5)
    again.start(torch.zeros(1), 3)
    again.load_state(saved)
    assert again.solution().tolist() == [-7.25]
    assert again.pull(1)["w"].tolist() == [-7.25], "begins anew at the mean of the others"
    assert again.solution().tolist() == [-7.25]
    assert again.v is not None and again.v.flatten().tolist() == [2.5, 0.0, 9.0]


def test_edges_must_fit_the_workers():
    with pytest.raises(InputError, match=r"algorithm\.graph=.*: there is no worker 2 among 2; allowed: "):
        build_run(compose("algorithm=ad_psgd", "algorithm.graph=[[0,1],[1,2]]", "model=linear", "cluster.workers=2"))
