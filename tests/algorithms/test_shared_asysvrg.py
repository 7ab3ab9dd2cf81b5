import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.base import Batch
from algorithms.shared_asysvrg import SharedAsySVRG
from tests.drawing import NETWORK
from tests.trial import train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "schedule.lr=0.05", "run.batch_size=16")
ATOMIC = ("algorithm.weight_decay=0.01", "algorithm.inner=4")
SAMPLES = 6


class LeastSquares:
    """f_i(w) = ½ (x_i·w − y_i)², in float64: what an oracle answers, and how often it was asked."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.x = torch.from_numpy(random.standard_normal((SAMPLES, 3)))
        self.y = torch.from_numpy(random.standard_normal(SAMPLES))
        self.counted: list[bool] = []

    def reference_gradient(self, w: Tensor, batch: Batch) -> Tensor:
        gradient = self.gradient(w, batch)
        self.counted[-1] = False
        return gradient

    def gradient(self, w: Tensor, batch: Batch) -> Tensor:
        self.counted.append(True)
        x = self.x[batch.ids]
        return x.T @ (x @ w - self.y[batch.ids]) / len(batch.ids)

    @property
    def full(self) -> Batch:
        return Batch(0, 0, torch.arange(SAMPLES))


def started(C: float = 0.1, **options: Any) -> tuple[SharedAsySVRG, LeastSquares]:
    method, oracle = SharedAsySVRG(weight_decay=C, **options), LeastSquares()
    method.plan(SAMPLES, 2)
    method.start(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), 1)
    method.snapshot(oracle.gradient(method.w, oracle.full))
    return method, oracle


def test_v_is_eq_2_5():
    method, oracle = started(C=0.1)
    w_tilde, read = method.w.numpy().copy(), np.array([0.1, 0.2, -0.3])
    x, y = oracle.x.numpy(), oracle.y.numpy()

    def gradient(i: int, w: np.ndarray) -> np.ndarray:
        return x[i] * (x[i] @ w - y[i]) + 0.1 * w

    full = np.mean([gradient(i, w_tilde) for i in range(SAMPLES)], axis=0)
    v = np.mean([gradient(i, read) - gradient(i, w_tilde) + full for i in (4, 1)], axis=0)
    oracle.counted.clear()
    found = method.direction(oracle, torch.from_numpy(read), Batch(7, 1, torch.tensor([4, 1])))  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), v, rtol=1e-12)
    assert sorted(oracle.counted) == [False, True], "the loss at the snapshot is not the training loss"


def test_v_is_unbiased_and_exact_at_snapshot():
    method, oracle = started()
    read = torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64)
    pairs = [torch.tensor(pair) for pair in itertools.combinations(range(SAMPLES), 2)]
    for w, spread in ((read, True), (method.w, False)):
        drawn = [method.direction(oracle, w, Batch(0, 0, ids)).clone() for ids in pairs]  # type: ignore[arg-type]
        v = torch.stack(drawn)
        full = oracle.gradient(w, oracle.full) + 0.1 * w
        torch.testing.assert_close(v.mean(0), full, rtol=1e-12, atol=1e-12)
        assert (v.std(0).max() > 1e-3) == spread


def test_v_varies_less_than_gradient():
    method, oracle = started(C=0.0)
    near = method.w + 0.01
    batches = [Batch(0, 0, torch.tensor([i])) for i in range(SAMPLES)]
    v = torch.stack([method.direction(oracle, near, batch).clone() for batch in batches])  # type: ignore[arg-type]
    g = torch.stack([oracle.gradient(near, batch) for batch in batches])
    assert v.var(0).sum() < g.var(0).sum() / 1000


def test_constant_rate_converges_where_sgd_stalls():
    method, oracle = started(C=0.1)
    random = torch.Generator().manual_seed(0)
    sgd = method.w.clone()
    for number in range(3000):
        if number % 20 == 0:
            method.snapshot(oracle.gradient(method.w, oracle.full))
        batch = Batch(number, 0, torch.randint(SAMPLES, (1,), generator=random))
        method.write(slice(None), method.direction(oracle, method.w, batch), 0.05)  # type: ignore[arg-type]
        sgd.sub_(0.05 * (oracle.gradient(sgd, batch) + 0.1 * sgd))

    def norm(w: Tensor) -> float:
        return float((oracle.gradient(w, oracle.full) + 0.1 * w).norm())

    assert norm(method.w) < 1e-10
    assert norm(sgd) > 1e-3


def test_one_worker_is_sequential_svrg(tmp_path: Path):
    run = train("algorithm=shared_asysvrg", "cluster.workers=1", *RUN, *ATOMIC, "run.epochs=5", folder=tmp_path)
    oracle, batches = run.components.oracle, run.components.batches
    start = train(
        "algorithm=hogwild", "cluster.workers=1", *RUN, "run.epochs=0.1", "schedule.lr=1e-30", folder=tmp_path
    )
    w = start.executor.weights().double().numpy()

    def gradient(w: np.ndarray, batch: Batch) -> np.ndarray:
        return oracle.gradient(torch.from_numpy(w).float(), batch).double().numpy() + 0.01 * w

    spent = 0.0
    w_tilde = full = w
    for number in range(len(batches)):
        if number % 4 == 0:
            w_tilde, spent = w.copy(), spent + 70
            full = gradient(w_tilde, Batch(0, 0, torch.arange(70)))
        batch = batches.batch(number)
        w = w - 0.05 * (gradient(w, batch) - gradient(w_tilde, batch) + full)
        spent += 2 * len(batch.ids)
    assert len(batches) > 6
    assert run.control.epoch == pytest.approx(spent / 70)
    assert run.control.epoch >= 5 > run.control.epoch - (2 * 16 + 70) / 70
    np.testing.assert_allclose(run.executor.weights().numpy(), w, rtol=0, atol=2e-5)


@pytest.mark.parametrize("decay", ["0", "0.01"])
@pytest.mark.parametrize("passes", ["0", "1"])
def test_one_worker_has_svrgs_bits(decay: str, passes: str, tmp_path: Path):
    """With and without an l2 term, and passes of SGD before the first snapshot; networks may drop units."""
    options = (f"algorithm.weight_decay={decay}", f"algorithm.sgd_epochs={passes}", "algorithm.inner=4")
    given = (*NETWORK, *RUN[1:], *options, "cluster.workers=1", "run.epochs=6")
    shared = train("algorithm=shared_asysvrg", *given, folder=tmp_path)
    svrg = train("algorithm=svrg", *given, folder=tmp_path)
    assert (shared.control.updates, shared.sha256) == (svrg.control.updates, svrg.sha256)
    assert shared.control.epoch == svrg.control.epoch


def test_independent_draws_are_svrgs(tmp_path: Path):
    given = (*RUN, *ATOMIC, "algorithm.replacement=true", "cluster.workers=1", "run.epochs=4")
    shared = train("algorithm=shared_asysvrg", *given, folder=tmp_path)
    assert shared.sha256 == train("algorithm=svrg", *given, folder=tmp_path).sha256
    assert shared.sha256 != train("algorithm=svrg", *given, "algorithm.replacement=false", folder=tmp_path).sha256


def test_older_states_are_read():
    """Files from before had the l2 term of the snapshot in their full gradient, `full`."""
    method, oracle = started(C=0.1)
    old = {"w": method.w + 1, "w_tilde": method.w_tilde + 0, "full": method.full + 0.1 * method.w_tilde}
    read, batch = torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64), Batch(7, 1, torch.tensor([4, 1]))
    expected = method.direction(oracle, read, batch).clone()  # type: ignore[arg-type]
    method.full.zero_()
    method.load_state(old)
    torch.testing.assert_close(method.direction(oracle, read, batch), expected)  # type: ignore[arg-type]
    assert torch.equal(method.w, old["w"])


def test_first_epochs_are_hogwilds(tmp_path: Path):
    sgd = ("algorithm.sgd_epochs=2", "algorithm.sgd_lr=0.3", "algorithm.sgd_decay=0")
    first = train("algorithm=shared_asysvrg", *RUN, *ATOMIC, *sgd, "run.epochs=2", folder=tmp_path)
    hogwild = train(
        "algorithm=hogwild", *RUN, "algorithm.weight_decay=0.01", "run.epochs=2", "schedule.lr=0.3", folder=tmp_path
    )
    torch.testing.assert_close(first.executor.weights(), hogwild.executor.weights(), rtol=0, atol=1e-6)
    assert first.control.epoch == hogwild.control.epoch == 2
    longer = train("algorithm=shared_asysvrg", *RUN, *ATOMIC, *sgd, "run.epochs=3.1", folder=tmp_path)
    assert longer.control.updates == hogwild.control.updates + 1, (
        "a snapshot costs a pass, and its first update comes after"
    )


def test_sgd_epochs_rate_falls():
    method = SharedAsySVRG(sgd_epochs=3, sgd_lr=0.4, sgd_decay=0.5)
    method.plan(SAMPLES, 2)
    step: object = type("Step", (), {"lr": 0.01})
    rates = [method.rate(Batch(3 * epoch, epoch, torch.arange(1)), step) for epoch in range(4)]  # type: ignore[arg-type]
    assert rates == pytest.approx([0.4, 0.4 / 2**0.5, 0.4 / 3**0.5, 0.01])


def test_batch_norm_networks_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^model=resnet8: .*batch norm"):
        train("algorithm=shared_asysvrg", "model=resnet8", folder=tmp_path)
