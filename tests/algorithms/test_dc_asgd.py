from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.base import Batch, Step
from algorithms.blockwise import BLOCK
from algorithms.dc_asgd import DCASGD, DCASGDAbs, DCASGDAdaptive, DCASGDConstant
from tests.trial import equal, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "schedule.lr=0.05", "run.batch_size=16")
N = BLOCK + 13
"""One block and a tail."""
FORMS = ["dc_asgd_c", "dc_asgd_a", "dc_asgd_abs"]
# Who comes to the server: a worker, and whether it then pulls again.
VISITS = [(0, True), (2, True), (1, True), (0, False), (0, True), (2, True), (1, True)]


def built(form: str, **options: Any) -> DCASGD:
    options = {"lambda0": 0.7} | options
    if form == "dc_asgd_a":
        return DCASGDAdaptive(**{"m": 0.9, **options})
    return (DCASGDConstant if form == "dc_asgd_c" else DCASGDAbs)(**options)


class Paper:
    """The same methods in NumPy and float64, straight from the papers' equations."""

    def __init__(self, form: str, w: np.ndarray, workers: int, **options: Any) -> None:
        self.form = form
        self.w = w.astype(np.float64)
        self.bak = [self.w.copy() for _ in range(workers)]
        self.v = np.zeros_like(self.w)
        self.ms = [np.zeros_like(self.w) for _ in range(workers)]
        self.lambda0, self.m, self.per_worker, self.inverse_lr = 0.7, 0.9, False, False
        self.momentum, self.nesterov, self.weight_decay = 0.0, False, 0.0
        for name, value in options.items():
            assert hasattr(self, name)
            setattr(self, name, value)

    def push(self, worker: int, g: np.ndarray, lr: float, decay: float) -> None:
        g = g.astype(np.float64)
        scale = self.lambda0 / decay if self.inverse_lr else self.lambda0
        drift = self.w - self.bak[worker]
        if self.form == "dc_asgd_abs":
            d = g + scale * np.abs(g) * drift
        else:
            if self.form == "dc_asgd_a":
                slot = worker if self.per_worker else 0
                self.ms[slot] = self.m * self.ms[slot] + (1 - self.m) * g * g
                scale = scale / np.sqrt(self.ms[slot] + 1e-7)
            d = g + scale * g * g * drift
        d = d + self.weight_decay * self.w
        self.v = self.momentum * self.v + d
        self.w = self.w - lr * (d + self.momentum * self.v if self.nesterov else self.v)

    def pull(self, worker: int) -> None:
        self.bak[worker] = self.w.copy()


VARIANTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"momentum": 0.8}, {"momentum": 0.8}),
    ({"momentum": 0.8, "nesterov": True}, {"momentum": 0.8, "nesterov": True}),
    ({"weight_decay": 0.1}, {"weight_decay": 0.1}),
    ({"lambda_schedule": "inverse_lr"}, {"inverse_lr": True}),
    ({"backup": "worker"}, {}),
    (
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "lambda_schedule": "inverse_lr", "backup": "worker"},
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1, "inverse_lr": True},
    ),
]
ADAPTIVE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"m": 0.0}, {"m": 0.0}),
    ({"mean_square": "worker"}, {"per_worker": True}),
    ({"mean_square": "worker", "backup": "worker", "m": 0.5}, {"per_worker": True, "m": 0.5}),
]


@pytest.mark.parametrize(
    ("form", "options", "same"),
    [(form, *variant) for form in FORMS for variant in VARIANTS] + [("dc_asgd_a", *variant) for variant in ADAPTIVE],
)
def test_updates_match_the_papers(form: str, options: dict[str, Any], same: dict[str, Any]):
    random = np.random.default_rng(0)
    start = random.standard_normal(N).astype(np.float32)
    paper, method = Paper(form, start, 3, **same), built(form, **options)
    method.start(torch.from_numpy(start.copy()), 3)
    pulled = [method.pull(worker)["w"].clone() for worker in range(3)]
    for number, (worker, pulls) in enumerate(VISITS):
        g = random.standard_normal(N).astype(np.float32)
        lr, decay = (0.3, 1.0) if number < 4 else (0.03, 0.1)
        message = {"g": torch.from_numpy(g.copy())}
        if options.get("backup") == "worker":
            message["w"] = pulled[worker]
        kept = {name: tensor.clone() for name, tensor in message.items()}
        method.push(worker, message, Step(lr=lr, decay=decay, staleness=number))
        assert equal(message, kept)
        paper.push(worker, g, lr, decay)
        np.testing.assert_allclose(method.w, paper.w, rtol=1e-5, atol=1e-5)
        if pulls:
            answer = method.pull(worker)["w"]
            assert torch.equal(answer, method.w)
            pulled[worker] = answer.clone()
            paper.pull(worker)
    assert np.abs(paper.w - start).max() > 0.5


@pytest.mark.parametrize("form", FORMS)
def test_sent_backup_stays_unchanged(form: str):
    method = built(form)
    method.start(torch.ones(4), 2)
    method.pull(1)
    method.push(0, {"g": torch.ones(4)}, Step(lr=0.1))
    sent = method.sent(1)
    assert sent is not None
    assert torch.equal(sent["w"], torch.ones(4))
    assert not torch.equal(method.w, torch.ones(4))
    assert method.state()["bak"].shape == (2, 4)
    on_workers = built(form, backup="worker")
    on_workers.start(torch.ones(4), 2)
    assert on_workers.sent(1) is None
    assert "bak" not in on_workers.state()


def test_only_worker_backup_sends_weights():
    assert built("dc_asgd_c").layout(9).push == {"g": 9}
    assert built("dc_asgd_c", backup="worker").layout(9).push == {"g": 9, "w": 9}


def test_worker_with_backup_pushes_its_weights():
    oracle: Any = SimpleNamespace(gradient=lambda w, batch: 2 * w)
    w, batch = torch.arange(3.0), Batch(0, 0, torch.arange(1))
    message = built("dc_asgd_c", backup="worker").worker(0).work(oracle, {"w": w}, batch)
    assert torch.equal(message["g"], 2 * w)
    assert torch.equal(message["w"], w)
    assert built("dc_asgd_c").worker(0).work(oracle, {"w": w}, batch).keys() == {"g"}


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
@pytest.mark.parametrize("form", FORMS)
def test_one_worker_is_sgd_to_the_bit(form: str, model: str, tmp_path: Path):
    overrides = (
        f"model={model}",
        *RUN,
        "algorithm.momentum=0.9",
        "algorithm.nesterov=true",
        "algorithm.weight_decay=0.01",
    )
    one = train(f"algorithm={form}", "cluster.workers=1", *overrides, folder=tmp_path)
    assert equal(one.weights, train("algorithm=sgd", *overrides, folder=tmp_path).weights)
    assert one.notes.rows[-1]["staleness_max"] == 0
    two = train(f"algorithm={form}", "cluster.workers=2", *overrides, folder=tmp_path)
    assert not equal(one.weights, two.weights)


@pytest.mark.parametrize("form", FORMS)
def test_lambda_zero_is_asgd_to_the_bit(form: str, tmp_path: Path):
    overrides = ("model=resnet8", *RUN, "cluster.workers=3", "algorithm.momentum=0.9", "algorithm.weight_decay=0.01")
    asgd = train("algorithm=asgd", *overrides, folder=tmp_path)
    zero = train(f"algorithm={form}", "algorithm.lambda0=0", *overrides, folder=tmp_path)
    assert equal(asgd.weights, zero.weights)
    assert zero.notes.rows[-1]["staleness_max"] > 0
    more = train(f"algorithm={form}", "algorithm.lambda0=0.5", *overrides, folder=tmp_path)
    assert not equal(asgd.weights, more.weights)


@pytest.mark.parametrize("form", FORMS)
def test_worker_backup_changes_no_bit(form: str, tmp_path: Path):
    overrides = (f"algorithm={form}", "model=resnet8", *RUN, "cluster.workers=3")
    runs = [train(*overrides, f"algorithm.backup={where}", folder=tmp_path) for where in ("server", "worker")]
    assert equal(runs[0].weights, runs[1].weights)
    assert [set(run.state) >= {"bak"} for run in runs] == [True, False]


def test_adaptive_without_memory_nears_absolute_form():
    """λ0 g² / sqrt(g² + 1e-7) differs from λ0 |g| by at most λ0 sqrt(1e-7), and by less where |g| is larger."""
    generator = torch.Generator().manual_seed(0)
    start, g = torch.randn(N, generator=generator), torch.randn(N, generator=generator)
    after = []
    for form, options in (("dc_asgd_a", {"m": 0.0}), ("dc_asgd_abs", {}), ("dc_asgd_c", {})):
        method = built(form, lambda0=2.0, **options)
        method.start(start.clone(), 1)
        method.w.add_(1.0)
        method.push(0, {"g": g}, Step(lr=1.0))
        after.append(method.w.clone())
    adaptive, absolute, constant = after
    assert (adaptive - absolute).abs().max() <= 2.0 * 1e-7**0.5 + 1e-5
    large = g.abs() > 0.1
    torch.testing.assert_close(adaptive[large], absolute[large], rtol=1e-5, atol=2e-5)
    assert (adaptive - constant).abs().mean() > 0.1


def test_adaptive_run_without_memory_nears_absolute_form(tmp_path: Path):
    overrides = ("model=mlp", *RUN, "cluster.workers=3", "algorithm.lambda0=2")
    adaptive = train("algorithm=dc_asgd_a", "algorithm.m=0", *overrides, folder=tmp_path).executor.weights()
    fixed = ("algorithm=dc_asgd_abs", "algorithm.lambda_schedule=constant")
    absolute = train(*fixed, *overrides, folder=tmp_path).executor.weights()
    asgd = train("algorithm=asgd", *overrides[:-1], folder=tmp_path).executor.weights()
    assert (adaptive - absolute).norm() < 0.02 * (asgd - absolute).norm()


def test_lambda_follows_decay_not_warm_up():
    constant, inverse = built("dc_asgd_c"), built("dc_asgd_c", lambda_schedule="inverse_lr")
    assert inverse.lambda_t(Step(lr=0.01, decay=1.0)) == 0.7
    assert inverse.lambda_t(Step(lr=0.01, decay=0.1)) == pytest.approx(7.0)
    assert constant.lambda_t(Step(lr=0.01, decay=0.1)) == 0.7


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("dc_asgd_c", {"lambda0": -0.1}, r"algorithm\.lambda0=-0\.1: out of range; allowed: lambda0 >= 0"),
        (
            "dc_asgd_c",
            {"lambda_schedule": "up"},
            r"algorithm\.lambda_schedule=up: unknown; allowed: constant",
        ),
        ("dc_asgd_abs", {"backup": "disk"}, r"algorithm\.backup=disk: unknown; allowed: server, worker"),
        ("dc_asgd_a", {"m": 1.0}, r"algorithm\.m=1\.0: out of range; allowed: 0 <= m < 1"),
        ("dc_asgd_a", {"m": -0.1}, r"algorithm\.m=-0\.1"),
        ("dc_asgd_a", {"mean_square": "none"}, r"algorithm\.mean_square=none: unknown; allowed: server, worker"),
        ("dc_asgd_a", {"momentum": 1.5}, r"algorithm\.momentum=1\.5"),
    ],
)
def test_wrong_values_are_refused(form: str, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        built(form, **options)


def test_forms_are_kinds_of_asgd():
    assert all(issubclass(form, ASGD) for form in (DCASGDConstant, DCASGDAdaptive, DCASGDAbs))
