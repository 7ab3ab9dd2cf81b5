"""Modules on real processes: the bits of the simulation, accidents, and going on."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from algorithms.pipeline import Features
from runner.config.errors import InputError
from runner.processes.pipeline import ProcessPipeline
from runner.processes.rendezvous import READY, file_rendezvous
from runner.run_folder.jsonl import read_lines
from runner.run_folder.timeline import Timeline
from runner.train import build, ranks
from runner.train.build import build_run
from tests.runner.processes.test_spawn import Watched
from tests.runner.train.test_ranks import torchrun
from tests.trial import Notes, compose, run_in, train

DEEP = (
    "model=resnet8",
    "dataset.limit_train=29",
    "dataset.limit_test=10",
    "dataset.augment=true",
    "run.batch_size=8",
    "run.epochs=2",
    "run.eval_every=0.6",
    "algorithm.momentum=0.9",
    "algorithm.weight_decay=1e-3",
)
"""Four iterations an epoch, the last one of five samples; evaluations fall in the middle of the pipeline's filling."""
FLAT = ("model=mlp", "model.widths=[32,16]", *DEEP[1:])
SAME = (
    *("weights_sha256", "buffers_sha256", "updates", "samples", "epochs", "final_test_error", "activation_bytes"),
    "bytes_sent",
)


def both(tmp_path: Path, *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
    code, simulated = run_in(tmp_path / "simulated", *overrides)
    assert code == 0
    code, real = run_in(tmp_path / "processes", *overrides, "cluster=processes")
    assert code == 0
    return simulated, real


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("algorithm=bp", *FLAT), marks=pytest.mark.slow),
        pytest.param(("algorithm=ddg", *FLAT), marks=pytest.mark.slow),
        pytest.param(("algorithm=fr", *DEEP, "run.channels_last=true"), marks=pytest.mark.slow),
        pytest.param(("algorithm=dni", *FLAT), marks=pytest.mark.slow),
        ("algorithm=ddg", *DEEP, "cluster.workers=3"),
        pytest.param(("algorithm=fr", *FLAT, "cluster.workers=3", "algorithm.start=skip"), marks=pytest.mark.slow),
        pytest.param(("algorithm=bp", *FLAT, "cluster.workers=1"), marks=pytest.mark.slow),
        pytest.param(("algorithm=dni", *DEEP), marks=pytest.mark.slow),
        pytest.param(("algorithm=bp", *DEEP, "cluster.workers=3"), marks=pytest.mark.slow),
        pytest.param(("algorithm=ddg", *DEEP, "algorithm.weights=current"), marks=pytest.mark.slow),
        pytest.param(("algorithm=fr", *DEEP, "cluster.workers=4"), marks=pytest.mark.slow),
        # Micro-batches, of which the last one of an epoch's last five samples is empty.
        ("algorithm=gpipe", *FLAT, "cluster.workers=3", "algorithm.micro_batches=6", "algorithm.order=1f1b"),
        pytest.param(("algorithm=gpipe", *DEEP, "cluster.workers=3"), marks=pytest.mark.slow),
        pytest.param(("algorithm=pipedream", *DEEP, "cluster.workers=3"), marks=pytest.mark.slow),
        pytest.param(
            ("algorithm=pipedream", *FLAT, "cluster.workers=3", "algorithm.weights=vertical"), marks=pytest.mark.slow
        ),
        ("algorithm=pipedream_2bw", *FLAT, "cluster.workers=3", "algorithm.micro_batches=6"),
        pytest.param(("algorithm=pipedream_2bw", *DEEP, "cluster.workers=3"), marks=pytest.mark.slow),
        pytest.param(("algorithm=spectrain", *FLAT, "cluster.workers=3"), marks=pytest.mark.slow),
    ],
    ids=lambda overrides: f"{overrides[0]}-{overrides[-1]}",
)
def test_modules_have_the_simulations_bits(overrides: tuple[str, ...], tmp_path: Path):
    simulated, real = both(tmp_path, *overrides)
    for key in SAME:
        assert real[key] == simulated[key], key
    assert (real["clock"], simulated["clock"]) == ("measured", "virtual")
    assert 0 < real["seconds"] <= real["wall_seconds"]
    assert (real["status"], real["workers_lost"]) == ("completed", 0)
    here, there = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("simulated", "processes"))
    assert len(here) == len(there) == 4
    for a, b in zip(here, there, strict=True):
        for key in ("train_loss", "train_error", "test_loss", "test_error", "activation_bytes_module1", "updates"):
            assert a[key] == b[key], key
    saved = [load_file(tmp_path / name / "weights.safetensors") for name in ("simulated", "processes")]
    assert all(torch.equal(saved[1][name], value) for name, value in saved[0].items())


def test_each_modules_time_is_told(tmp_path: Path):
    slow = ("cluster.compute.seconds=0.03", "cluster.compute.distribution=constant")
    code, summary = run_in(tmp_path, "algorithm=bp", *FLAT, "cluster=processes", *slow)
    assert code == 0
    assert summary["seconds"] > 7 * 0.03, "what the cluster says is slept, and locked modules take turns"
    workers = json.loads((tmp_path / "workers.json").read_text())["workers"]
    assert len(workers) == 2
    for row in workers:
        assert row["gradients"] == 2 * summary["updates"], "a forward and a backward pass in each iteration"
        assert row["utilization"] > 0 and row["transferring"] > 0 and row["waiting"] > 0
        assert row["utilization"] + row["transferring"] + row["waiting"] < 1.001
    assert sum(row["utilization"] for row in workers) < 1.1


BRIEF = (
    "model=mlp",
    "dataset.limit_train=60",
    "dataset.limit_test=20",
    "run.batch_size=4",
    "run.eval_every=1",
    "algorithm.momentum=0.9",
    "cluster.workers=2",
)
SLOWED = ("cluster=processes", "cluster.compute.seconds=0.01", "cluster.compute.distribution=constant")


@pytest.mark.parametrize(("method", "rank", "backward"), [("fr", 0, 1.0), ("fr", 1, 2 / 3), ("ddg", 0, 2 / 3)])
def test_a_replay_takes_a_forward_pass(method: str, rank: int, backward: float, tmp_path: Path):
    """A third of a module's seconds is its forward pass; the last module does not replay."""
    components = build_run(compose(f"algorithm={method}", *BRIEF, "cluster=processes"))
    meeting: Any = SimpleNamespace(rank=rank, world=2, store=None)
    executor: Any = ProcessPipeline(
        components.method,
        components.partition,
        rendezvous=meeting,
        oracle=components.oracle,
        batches=components.batches,
        control=components.train_control(logger=Notes(), folder=tmp_path, save=lambda updates, state: None),
        timeline=Timeline(2),
        clock=components.clock(),
    )
    shares: list[float] = []
    executor._computed = lambda begin, share: shares.append(share)
    executor._send = lambda channel, values, flag: None
    # All ranks would look at the last module's loss.
    executor._loss = lambda: None
    inputs, targets = components.oracle.split.batch(torch.arange(4))
    if rank:
        inputs = torch.zeros(4, *components.partition.outputs[0])
    executor._features = lambda batch, piece: Features(0, inputs, targets)
    executor._take_step()
    assert shares == pytest.approx([components.partition.work_shares[rank] * share for share in (1 / 3, backward)])


@pytest.mark.slow
def test_a_run_resumes_after_a_dead_module(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    overrides = ("algorithm=ddg", *BRIEF, "run.epochs=12")
    whole = train(*overrides, folder=tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    watched = Watched(folder, ("worker 1", signal.SIGKILL))
    code, summary = run_in(folder, *overrides, *SLOWED)
    assert watched.none_left()
    assert (code, summary["status"]) == (3, "interrupted")
    assert "worker 1" in summary["error"] and "SIGKILL" in summary["error"]
    assert 0 < summary["updates"] < whole.control.updates
    code, summary = run_in(folder, *overrides, *SLOWED, f"run.resume={folder}")
    assert (code, summary["status"]) == (0, "completed")
    assert summary["weights_sha256"] == whole.sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "ranks", "number", "expected"),
    [
        ("dni", ("worker 1",), signal.SIGTERM, 143),
        ("fr", ("worker 0",), signal.SIGTERM, 143),
        ("bp", ("worker 0", "worker 1"), signal.SIGINT, 130),
        ("gpipe", ("worker 1",), signal.SIGTERM, 143),
        ("pipedream_2bw", ("worker 0",), signal.SIGTERM, 143),
    ],
)
def test_a_run_resumes_after_a_signal(
    algorithm: str, ranks: tuple[str, ...], number: signal.Signals, expected: int, tmp_path: Path
):
    """Wherever it arrives; a checkpoint in the middle of an epoch holds what is on its way between the modules."""
    overrides = (f"algorithm={algorithm}", *BRIEF, "run.epochs=8")
    whole = train(*overrides, folder=tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    watched = Watched(folder, *((name, number) for name in ranks))
    code, summary = run_in(folder, *overrides, *SLOWED)
    assert watched.none_left()
    assert (code, summary["status"]) == (expected, "interrupted")
    newest = max(folder.glob("checkpoints/step-*.pt"))
    assert int(newest.stem.split("-")[1]) == summary["updates"] < whole.control.updates
    code, summary = run_in(folder, *overrides, *SLOWED, f"run.resume={folder}")
    assert (code, summary["status"]) == (0, "completed")
    assert summary["weights_sha256"] == whole.sha256


@pytest.mark.slow
def test_an_infinite_loss_ends_all_modules(tmp_path: Path):
    overrides = ("algorithm=bp", *BRIEF, "schedule.lr=1e30", "run.epochs=50", "run.eval_every=50")
    simulated = run_in(tmp_path / "simulated", *overrides)[1]
    code, real = run_in(tmp_path / "processes", *overrides, "cluster=processes")
    assert (code, real["status"], simulated["status"]) == (0, "diverged", "diverged")
    assert real["updates"] == simulated["updates"] == 32


@pytest.mark.slow
def test_torchrun_starts_three_modules(tmp_path: Path):
    folder = tmp_path / "run"
    settings = ("algorithm=ddg", "model.widths=[32,16]", "dataset.limit_train=60", "run.batch_size=8", "run.epochs=2")
    with torchrun(tmp_path, *settings, "run.device=cpu", f"hydra.run.dir={folder}") as agent:
        _, errors = agent.communicate()
    assert agent.returncode == 0, errors
    summary = json.loads((folder / "summary.json").read_text())
    whole = train("model=mlp", *settings, "cluster.workers=3", folder=tmp_path)
    assert (summary["status"], summary["workers"], summary["weights_sha256"]) == ("completed", 3, whole.sha256)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("run.diagnostics=[sufficient_direction]",),
            r"^run\.diagnostics=sufficient_direction: .*; allowed: with cluster=simulated",
        ),
        (("cluster.network.latency=0.1",), r"^cluster\.network\.latency=0\.1: .*; allowed: 0, or "),
        (("cluster.network.bandwidth=1e6",), r"^cluster\.network\.bandwidth=1000000: .*; allowed: null, or "),
    ],
)
def test_options_without_meaning_are_refused(overrides: tuple[str, ...], message: str):
    with pytest.raises(InputError, match=message):
        build.build_run(compose("algorithm=ddg", "cluster=processes", *overrides))


def test_an_uncuttable_network_is_refused_first(tmp_path: Path):
    rendezvous = file_rendezvous(str(tmp_path / "store"), 0, 9, 5.0)
    cfg = compose("algorithm=ddg", "cluster=processes", "model=mlp", "cluster.workers=9")
    with pytest.raises(InputError, match=r"^cluster\.workers=9: the network has 2 blocks with weights"):
        ranks.run_rank(cfg, tmp_path, rendezvous)
    assert not rendezvous.store.check([READY])
    assert not (tmp_path / "summary.json").exists()
