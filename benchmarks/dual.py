"""Compares a message of Dis-dfSDCA and a round of SDCA, H samples at once, with the same steps one by one in NumPy.

The problem is made up and has IJCNN1's size (49,990 samples of 22 features). Both sides draw the same samples, so they
do the same work. The loop is that of a textbook: the lines of algorithms 7 and 4, a sample at a time.

Last comes a pass of SDCA over the data in messages of 5000 samples, their draws included, beside a pass of
scikit-learn's SAG on the same ridge regression, one thread each. scikit-learn sets up in every fit, so its pass is a
difference: fits of 22 passes less fits of 2, by 20, with a tolerance of 0, at which it stops at `max_iter`.
"""

from __future__ import annotations

import time
import warnings

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import numpy as np
import torch
from sidebyside import Row, Side, in_turn, main, ratios, sized
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning

from algorithms.base import Batch, Problem, Step
from algorithms.cocoa_plus import SDCA
from algorithms.dis_dfsdca import DfSDCA
from data.base import Split
from models.ridge import Ridge
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica
from runner.loop.batches import Batches

N, D, LAMBDA, ETA = sized(49_990, 2000), 22, 0.1, 1e-4
SIZES = {100: 2.0, 1000: 5.0}
"""Samples a message H, and how many times as fast as the loop it has to be."""
PASS, FEW, MANY = sized(5000, 500), 2, 22
"""H in a pass over the data, and passes of scikit-learn's shorter and longer fit."""
SAMPLES = sized(20_000, 2000)
"""Samples a side uses in a turn: enough that its first messages, which find the other side's caches, count little."""
ROUNDS, SECONDS = sized(50, 1), 20.0


class Data:
    """Samples, and the batches that both sides use in turn."""

    def __init__(self, h: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(N, D, generator=generator) / D**0.5
        self.targets = torch.randint(0, 2, (N,), generator=generator)
        self.h = h
        self.pool = torch.arange(N)
        self.batches = [torch.randint(N, (h,), generator=generator) for _ in range(SAMPLES // h)]
        self.rows = self.x.double().numpy()
        self.y = 2.0 * self.targets.numpy() - 1
        self.problem = Problem(N, D, 1, h, True)

    def oracle(self) -> NetworkOracle:
        return NetworkOracle(Replica(Ridge(shape=(D,), classes=2)), Split(self.x, self.targets), seed=0)


def dfsdca(data: Data) -> Side:
    """Samples per second of dcrun's dfSDCA: pull, work, push."""
    oracle, method = data.oracle(), DfSDCA(weight_decay=LAMBDA)
    method.bind_problem(data.problem)
    method.start(torch.zeros(D), 1)
    method.announce(Step(ETA))
    half = method.worker(0)

    def side() -> float:
        begin = time.perf_counter()
        for number, ids in enumerate(data.batches):
            pulled = {name: tensor.clone() for name, tensor in method.pull(0).items()}
            method.push(0, half.work(oracle, pulled, Batch(number, 0, ids, data.pool)), Step(ETA))
        return len(data.batches) * data.h / (time.perf_counter() - begin)

    return side


def dfsdca_loop(data: Data) -> Side:
    """Samples per second of algorithm 7 in a loop."""
    alpha, w = np.zeros(N), np.zeros(D)

    def side() -> float:
        nonlocal w
        begin = time.perf_counter()
        for ids in data.batches:
            v = np.zeros(D)
            for i in ids.tolist():
                kappa = data.rows[i] @ w - data.y[i] + alpha[i]
                alpha[i] -= ETA * LAMBDA * N * kappa
                v += kappa * data.rows[i]
            w = w - ETA * v
        return len(data.batches) * data.h / (time.perf_counter() - begin)

    return side


def sdca(data: Data) -> Side:
    """Samples per second of dcrun's SDCA: local steps and their application."""
    oracle, method = data.oracle(), SDCA(weight_decay=LAMBDA)
    method.bind_problem(data.problem)
    method.start(torch.zeros(D), 0, 1)

    def side() -> float:
        begin = time.perf_counter()
        for number, ids in enumerate(data.batches):
            message = method.local(oracle, Batch(number, 0, ids, data.pool), Step(0.0))
            assert message is not None
            method.apply(message, Step(0.0))
        return len(data.batches) * data.h / (time.perf_counter() - begin)

    return side


def sdca_loop(data: Data) -> Side:
    """Samples per second of algorithm 4 in a loop, its squared norms known before."""
    alpha, w, norms = np.zeros(N), np.zeros(D), (data.rows**2).sum(1)

    def side() -> float:
        begin = time.perf_counter()
        for ids in data.batches:
            for i in ids.tolist():
                delta = (data.y[i] - data.rows[i] @ w - alpha[i]) / (1 + norms[i] / (LAMBDA * N))
                alpha[i] += delta
                w[:] += delta / (LAMBDA * N) * data.rows[i]
        return len(data.batches) * data.h / (time.perf_counter() - begin)

    return side


def sdca_pass(data: Data) -> Side:
    """Passes per second of dcrun's SDCA."""
    batches = Batches(samples=N, size=data.h, seed=0, epochs=1, shards=1)
    oracle, method = data.oracle(), SDCA(weight_decay=LAMBDA)
    method.bind_problem(data.problem)
    method.start(torch.zeros(D), 0, 1)

    def side() -> float:
        begin = time.perf_counter()
        for number in range(len(batches)):
            [share] = batches.shares(number, 1)
            message = method.local(oracle, share, Step(0.0))
            assert message is not None
            method.apply(message, Step(0.0))
        return 1 / (time.perf_counter() - begin)

    return side


def sag_pass(data: Data) -> Side:
    """Passes per second of scikit-learn's SAG, without what a fit does before the first pass and after the last."""

    def fit(passes: int) -> float:
        # Its objective is ‖y − Xw‖² + alpha ‖w‖², 2n times P.
        model = linear_model.Ridge(
            alpha=LAMBDA * N, fit_intercept=False, solver="sag", max_iter=passes, tol=0, random_state=0
        )
        begin = time.perf_counter()
        model.fit(data.rows, data.y)
        return time.perf_counter() - begin

    # A difference of two durations is small beside a disturbance of either, so each is the shortest of three.
    def shortest(passes: int) -> float:
        return min(fit(passes) for _ in range(3))

    def side() -> float:
        return (MANY - FEW) / max(shortest(MANY) - shortest(FEW), 1e-9)

    return side


def measure() -> list[Row]:
    """Samples per second against the loops, for each H, and a pass against scikit-learn."""
    torch.set_num_threads(1)
    # scikit-learn says that it was stopped before it converged, which is what is asked for.
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = []
    for h, target in SIZES.items():
        data = Data(h)
        for name, ours, loop in (("dfsdca", dfsdca, dfsdca_loop), ("sdca", sdca, sdca_loop)):
            fast, slow = in_turn([ours(data), loop(data)], rounds=ROUNDS, seconds=SECONDS)
            note = f"{max(fast):,.0f} samples/s at best, the loop {max(slow):,.0f}"
            rows.append(Row(f"{name}, H={h}: samples/s / NumPy loop", target, ratios(fast, slow), note=note))
    data = Data(PASS)
    ours, sag = in_turn([sdca_pass(data), sag_pass(data)], rounds=ROUNDS, seconds=SECONDS)
    note = f"a pass takes {1000 / max(ours):.1f} ms at best, scikit-learn's SAG {1000 / max(sag):.1f} ms"
    what = "sdca: seconds of a pass over the data / scikit-learn's SAG"
    rows.append(Row(what, 2.0, ratios(sag, ours), at_least=False, note=note))
    return rows


if __name__ == "__main__":
    main(measure)
