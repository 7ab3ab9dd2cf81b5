import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from models.resnet import ResNet
from runner.config.errors import InputError
from runner.config.schema import DIAGNOSTICS
from runner.gradients.diagnostics import DISAGREEMENT, QUANTITIES, SUFFICIENT_DIRECTION, LayerLog, spread
from runner.loop.drift import OF_UPDATES
from runner.run_folder.jsonl import read_lines
from runner.train import build
from tests.trial import compose, run_in

RUN = ("algorithm=nag", "model=mlp", "dataset.limit_train=100", "dataset.limit_test=20", "run.epochs=3")
ASKED = ("run.diagnostics=[variance_factor,largest_rate]", "run.diagnostic_samples=30")

WIDE = ("algorithm=nag", "model=mlp", "model.widths=[40,30]")


def test_factors_are_those_of_single_gradients(tmp_path: Path):
    """Batch norm with running statistics: a network whose loss on a sample depends on that sample alone."""
    components = build.build_run(
        compose("algorithm=nag", "model=resnet8", "dataset.limit_train=50", "dataset.limit_test=20")
    )
    oracle = components.oracle
    network: Any = oracle.replica.module
    assert isinstance(network, ResNet)
    statistics = oracle.replica.initial_statistics() + 0.05
    ids = spread(50, 13)
    log = LayerLog(oracle, ids, tmp_path, 0, ["variance_factor"], batch_size=5)
    found = torch.tensor(log.measure("variance_factor", oracle.replica.weights.clone(), statistics))

    network.eval()
    values = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    weights = {name: values[name] for name, _ in network.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return network.loss(functional_call(network, values | weights, (x[None],)), y[None])

    single = vmap(grad(loss), (None, 0, 0))(weights, *components.dataset.train.batch(ids))
    assert len(found) == len(oracle.replica.layers) == 15
    for layer, factor in zip(oracle.replica.layers, found, strict=True):
        own = [g.double() for name, g in single.items() if name.rpartition(".")[0] == layer.name]
        above = sum(g.square().flatten(1).sum(1).mean() for g in own)
        below = sum(g.mean(0).square().sum() for g in own)
        torch.testing.assert_close(factor.double(), torch.as_tensor(above / below), rtol=1e-4, atol=0)
        assert factor >= 1


def test_largest_rate_is_last_without_rise(tmp_path: Path):
    """Each layer's bound, beside steps made by functional calls: it holds, and the next rate up does not."""
    components = build.build_run(compose(*WIDE, "dataset.limit_train=50", "dataset.limit_test=20"))
    oracle = components.oracle
    network: Any = oracle.replica.module
    ids = spread(50, 13)
    before = oracle.replica.weights.clone()
    log = LayerLog(oracle, ids, tmp_path, 0, ["largest_rate"], batch_size=5)
    found = log.measure("largest_rate", oracle.replica.weights, oracle.replica.initial_statistics())
    assert torch.equal(oracle.replica.weights, before)

    weights = {name: value.detach().double() for name, value in network.named_parameters()}
    inputs, targets = components.dataset.train.batch(ids)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return network.loss(functional_call(network, weights, (inputs.double(),)), targets)

    start, gradients = loss(weights), grad(loss)(weights)

    def rises(layer: str, rate: float) -> bool:
        step = {name: rate * (name.rpartition(".")[0] == layer) for name in weights}
        return bool(loss({name: w - step[name] * gradients[name] for name, w in weights.items()}) > start)

    assert len(found) == len(oracle.replica.layers) == 3
    for layer, rate in zip(oracle.replica.layers, found, strict=True):
        assert 1e-4 < rate < 1e5
        assert not rises(layer.name, rate)
        assert rises(layer.name, rate * 10 ** (1 / 8))
    assert max(found) > 2 * min(found), "layers differ, as section 4.4.1 says"


def test_largest_rate_is_computed_in_float32(tmp_path: Path):
    found = []
    for precision in ("fp32", "bf16"):
        limits = ("dataset.limit_train=50", "dataset.limit_test=20")
        oracle = build.build_run(
            compose("algorithm=nag", "model=resnet8", f"run.precision={precision}", *limits)
        ).oracle
        log = LayerLog(oracle, spread(50, 13), tmp_path, 0, ["largest_rate"], batch_size=5)
        found.append(log.measure("largest_rate", oracle.replica.weights, oracle.replica.initial_statistics()))
        assert oracle.precision == precision
    assert found[0] == found[1]
    assert not any(math.isnan(rate) for rate in found[0])


def test_largest_rate_without_gradient_is_unknown(tmp_path: Path):
    components = build.build_run(compose(*WIDE, "dataset.limit_train=50", "dataset.limit_test=20"))
    weights = components.oracle.replica.weights.clone()
    last = components.oracle.replica.layers[-1]
    weights[last.low : last.high] = 0
    log = LayerLog(components.oracle, spread(50, 13), tmp_path, 0, ["largest_rate"], batch_size=5)
    *below, top = log.measure("largest_rate", weights, components.oracle.replica.initial_statistics())
    assert all(math.isnan(rate) for rate in below), "nothing comes down through a classifier of zeros"
    assert top > 0
    log({"epoch": 1.0, "updates": 2}, weights, components.oracle.replica.initial_statistics(), None)
    [record] = read_lines(tmp_path / "layers.jsonl")
    assert record["largest_rate"]["hidden1.linear"] is None


def test_schema_names_all_measured_diagnostics():
    assert (*QUANTITIES, DISAGREEMENT, SUFFICIENT_DIRECTION, *OF_UPDATES) == DIAGNOSTICS


def test_each_evaluation_writes_a_line(tmp_path: Path):
    code, _ = run_in(tmp_path, *RUN, *ASKED)
    assert code == 0
    lines = read_lines(tmp_path / "layers.jsonl")
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert [(x["epoch"], x["updates"]) for x in lines] == [(x["epoch"], x["updates"]) for x in rows]
    assert len(lines) == 3
    for record in lines:
        assert list(record["variance_factor"]) == ["hidden1.linear", "classifier"]
        assert all(value >= 1 for value in record["variance_factor"].values())
        assert all(1e-4 <= value <= 1e5 for value in record["largest_rate"].values())


def test_looking_does_not_change_the_run(tmp_path: Path):
    _, plain = run_in(tmp_path / "plain", *RUN, "algorithm=dc_asgd_a", "run.batch_size=16", "model=resnet8")
    _, watched = run_in(tmp_path / "watched", *RUN, "algorithm=dc_asgd_a", "run.batch_size=16", "model=resnet8", *ASKED)
    assert watched["weights_sha256"] == plain["weights_sha256"]
    assert not (tmp_path / "plain" / "layers.jsonl").exists()


def test_resume_cuts_layers_with_metrics(tmp_path: Path):
    run_in(tmp_path, *RUN, *ASKED)
    before = (tmp_path / "layers.jsonl").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"status": "interrupted"}))
    max((tmp_path / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime).unlink()
    code, again = run_in(tmp_path, *RUN, *ASKED, f"run.resume={tmp_path}")
    assert code == 0
    assert again["weights_sha256"] == summary["weights_sha256"]
    assert (tmp_path / "layers.jsonl").read_text() == before


def test_fixed_sample_spreads_over_data():
    assert spread(10, 3).tolist() == [0, 3, 6]
    assert spread(5, 100).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("reached", [True, False])
def test_a_run_stops_at_its_target_loss(tmp_path: Path, reached: bool):
    code, summary = run_in(tmp_path, *RUN, "run.epochs=8", f"run.target_loss={1.0 if reached else 1e-6}")
    rows = read_lines(tmp_path / "metrics.jsonl")
    assert (code, summary["status"]) == (0, "completed")
    if reached:
        assert summary["epochs_to_target"] == summary["epochs"] == rows[-1]["epoch"] < 8
        assert rows[-1]["train_loss"] <= 1 < rows[-2]["train_loss"]
    else:
        assert summary["epochs_to_target"] is None
        assert summary["epochs"] == 8


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.micro_batch=0", r"run\.micro_batch=0: .*; allowed: integers from 1"),
        ("run.target_loss=0", r"run\.target_loss=0: .*; allowed: numbers above 0, null"),
        (
            "run.diagnostics=[variance]",
            r"run\.diagnostics=variance: .*; allowed: variance_factor, largest_rate, disagreement",
        ),
        ("run.diagnostics=[largest_rate,largest_rate]", r"run\.diagnostics=\[largest_rate,largest_rate\]: .* twice"),
        ("run.diagnostic_samples=0", r"run\.diagnostic_samples=0: "),
    ],
)
def test_wrong_options_are_refused(override: str, message: str):
    with pytest.raises(InputError, match=message):
        compose(override)
