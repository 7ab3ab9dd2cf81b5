"""Collective methods on real processes: the same bits as in simulation, averages that really travel."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner.run import execute
from tests.trial import compose, conduct

RUN = (
    "model=mlp",
    "dataset.limit_train=150",
    "dataset.limit_test=50",
    "run.batch_size=8",
    "run.epochs=3",
    "run.eval_every=0.4",
    "cluster.workers=2",
)


def both(tmp_path: Path, *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    results = []
    for kind in ("simulated", "processes"):
        code, summary = conduct(tmp_path / kind, *RUN, *overrides, f"cluster={kind}")
        assert (code, summary["status"]) == (0, "completed")
        results.append(summary)
    return results[0], results[1]


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=ssgd", "algorithm.momentum=0.9"),
        ("algorithm=local_sgd", "algorithm.tau=3", "algorithm.momentum=0.9"),
        ("algorithm=dasgd", "algorithm.tau=4", "algorithm.delay=2", "algorithm.momentum=0.9"),
        ("algorithm=dc_ssgd", "algorithm.lambda0=2"),
    ],
    ids=lambda overrides: overrides[0].split("=")[1],
)
def test_two_processes_give_the_bits_of_the_simulation(overrides: tuple[str, ...], tmp_path: Path):
    """Evaluated in the middle of periods, so that an evaluation that touched the weights would show."""
    simulated, real = both(tmp_path, *overrides)
    assert real["weights_sha256"] == simulated["weights_sha256"]
    for key in ("disagreement_mean", "disagreement_max"):
        if key in simulated:
            assert real[key] == pytest.approx(simulated[key], rel=1e-5)


def test_a_stopped_run_goes_on_with_the_average_that_travelled(tmp_path: Path):
    """Five steps a pass: at the checkpoint after each pass the average sent after step 4 is on its way."""
    options = (
        *("algorithm=dasgd", "algorithm.tau=4", "algorithm.delay=2", "model=mlp", "dataset.limit_train=80"),
        *("run.batch_size=8", "cluster=processes", "cluster.workers=2", "algorithm.momentum=0.9"),
    )
    _, expected = conduct(tmp_path / "whole", *options, "run.epochs=2")
    folder = tmp_path / "stopped"
    conduct(folder, *options, "run.epochs=1")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["weights_sha256"] != expected["weights_sha256"]
    (folder / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    cfg = compose(*options, "run.epochs=2")
    cfg.run.resume = str(folder)
    assert execute(cfg, folder) == 0
    continued = json.loads((folder / "summary.json").read_text())
    assert continued["updates"] == expected["updates"] == 10
    assert continued["weights_sha256"] == expected["weights_sha256"]


def test_an_acted_network_is_slept_and_hidden_behind_computing(tmp_path: Path):
    """0.06 s of computing a step, 0.048 s of network: waited for without delay, out of sight with one step of it."""
    options = (
        *("model=mlp", "dataset.limit_train=256", "dataset.limit_test=50", "run.batch_size=4", "run.epochs=1"),
        *("cluster=processes", "cluster.workers=2", "algorithm.tau=2"),
        *("cluster.compute.seconds=0.06", "cluster.compute.distribution=constant"),
        *("cluster.network.latency=0.048", "cluster.network.allreduce=linear"),
    )
    _, waits = conduct(tmp_path / "waits", "algorithm=local_sgd", *options)
    _, hides = conduct(tmp_path / "hides", "algorithm=dasgd", "algorithm.delay=1", *options)
    assert waits["updates"] == hides["updates"] == 32
    assert waits["seconds"] > 32 * 0.06 + 16 * 0.048
    assert waits["hidden_seconds"] == 0.0
    assert waits["communication_seconds"] > 16 * 0.048
    assert hides["seconds"] < waits["seconds"] - 10 * 0.048
    # The last one is sent with the last step, and not merged.
    assert hides["hidden_seconds"] > 0.8 * 15 * 0.048
