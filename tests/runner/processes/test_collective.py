import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from safetensors.torch import load_file

from runner.processes.async_collective import AsyncCollective
from runner.processes.collective import ProcessCollective
from runner.processes.rendezvous import Rendezvous, file_rendezvous, join_group
from runner.run_folder.jsonl import read_lines
from runner.run_folder.timeline import Timeline
from runner.train.build import build_run
from tests.drawing import NETWORK
from tests.runner.processes.test_spawn import Watched
from tests.trial import Notes, compose, run_in

RUN = (
    "dataset.limit_train=101",
    "dataset.limit_test=20",
    "dataset.augment=true",
    "run.batch_size=16",
    "run.epochs=2",
    "cluster.workers=2",
    "algorithm.momentum=0.9",
    "schedule.warmup_epochs=1",
)


def test_ssgd_has_the_simulations_bits(tmp_path: Path):
    """101 samples: the last step of an epoch has three for worker 0 and two for worker 1."""
    overrides = ("algorithm=ssgd", "model=resnet8", *RUN)
    simulated = run_in(tmp_path / "simulated", *overrides)[1]
    code, real = run_in(tmp_path / "processes", *overrides, "cluster=processes")
    assert code == 0
    for key in ("weights_sha256", "updates", "samples", "epochs", "final_test_error", "dataset_fingerprint"):
        assert real[key] == simulated[key], key
    assert real["status"] == "completed"
    assert (real["clock"], simulated["clock"]) == ("measured", "virtual")
    assert 0 < real["seconds"] <= real["wall_seconds"]
    tensors = [load_file(tmp_path / name / "weights.safetensors") for name in ("simulated", "processes")]
    for name, value in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_functional_dropout_has_the_simulations_bits(tmp_path: Path):
    overrides = ("algorithm=local_sgd", *NETWORK, *RUN)
    simulated = run_in(tmp_path / "simulated", *overrides)[1]
    code, real = run_in(tmp_path / "processes", *overrides, "cluster=processes")
    assert (code, real["weights_sha256"]) == (0, simulated["weights_sha256"])


GOSSIP = ("model=mlp", *RUN[:5], "schedule.warmup_epochs=1", "cluster.workers=4")
LATE = ("algorithm=dasgd", "algorithm._target_=tests.gossiping.Late", "algorithm.tau=3", "algorithm.delay=2")


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=d_psgd", "algorithm.momentum=0.9", "run.diagnostics=[disagreement]"),
        pytest.param(
            ("algorithm=d_psgd", "algorithm.order=step_first", "algorithm.graph=[[0,1],[1,2],[1,3]]"),
            marks=pytest.mark.slow,
        ),
        pytest.param(LATE, marks=pytest.mark.slow),
    ],
)
def test_neighbours_have_the_simulations_bits(overrides: tuple[str, ...], tmp_path: Path):
    """Each sum is a rank's own, in the order of the ranks: no all-reduce changes the order."""
    simulated = run_in(tmp_path / "simulated", *overrides, *GOSSIP)[1]
    code, real = run_in(tmp_path / "processes", *overrides, *GOSSIP, "cluster=processes")
    assert code == 0
    for key in ("weights_sha256", "updates", "samples", "final_test_error", "bytes_sent"):
        assert real[key] == simulated[key], key
    assert real["bytes_sent"] > 0


@pytest.mark.parametrize("overrides", [("algorithm=d_psgd",), pytest.param(LATE, marks=pytest.mark.slow)])
def test_neighbours_stop_together_and_go_on(overrides: tuple[str, ...], tmp_path: Path):
    """A rank that is asked to stop tells its neighbours, and these theirs; what travels is in the checkpoint."""
    given = (*overrides, *GOSSIP, "run.epochs=12", "run.batch_size=4")
    expected = run_in(tmp_path / "simulated", *given)[1]
    folder = tmp_path / "processes"
    folder.mkdir()
    slow = ("cluster=processes", "cluster.compute.seconds=0.05", "cluster.compute.distribution=constant")
    watched = Watched(folder, ("worker 2", signal.SIGTERM))
    code, summary = run_in(folder, *given, *slow)
    assert watched.none_left()
    assert (code, summary["status"]) == (143, "interrupted")
    assert 0 < summary["updates"] < expected["updates"]
    code, summary = run_in(folder, *given, *slow, f"run.resume={folder}")
    assert (code, summary["status"]) == (0, "completed")
    for key in ("weights_sha256", "updates", "bytes_sent"):
        assert summary[key] == expected[key], key


LOCAL = ("algorithm.tau=3", "run.diagnostics=[disagreement]")


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=dasgd", "algorithm.delay=2", *LOCAL),
        ("algorithm=dc_ssgd",),
        pytest.param(("algorithm=local_sgd", *LOCAL), marks=pytest.mark.slow),
        pytest.param(("algorithm=lars",), marks=pytest.mark.slow),
        pytest.param(
            ("algorithm=local_sgd", "algorithm._target_=tests.speaking.Centred", *LOCAL[1:], "algorithm.tau=5"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda overrides: overrides[0],
)
def test_other_methods_have_the_simulations_bits(overrides: tuple[str, ...], tmp_path: Path):
    simulated = run_in(tmp_path / "simulated", *overrides, "model=mlp", *RUN)[1]
    code, real = run_in(tmp_path / "processes", *overrides, "model=mlp", *RUN, "cluster=processes")
    assert code == 0
    for key in ("weights_sha256", "updates", "samples", "final_test_error", "bytes_sent"):
        assert real[key] == simulated[key], key
    assert real["bytes_sent"] > 0
    if "run.diagnostics=[disagreement]" in overrides:
        here, there = (read_lines(tmp_path / name / "layers.jsonl") for name in ("simulated", "processes"))
        assert len(here) == len(there) == 2
        for a, b in zip(here, there, strict=True):
            assert a["disagreement"] == pytest.approx(b["disagreement"], rel=1e-5)
            assert all(apart > 0 for apart in a["disagreement"].values())


@pytest.mark.parametrize("algorithm", ["ssgd", pytest.param("d_psgd", marks=pytest.mark.slow)])
@pytest.mark.parametrize("lr", ["1e30"])
def test_an_infinite_loss_ends_all_ranks(algorithm: str, lr: str, tmp_path: Path):
    overrides = (f"algorithm={algorithm}", "model=mlp", *RUN, "schedule.warmup_epochs=0", f"schedule.lr={lr}")
    # No evaluation finds it out: all ranks learn it with their combinations.
    code, summary = run_in(tmp_path, *overrides, "cluster=processes", "run.epochs=50", "run.eval_every=50")
    assert (code, summary["status"]) == (0, "diverged")
    assert summary["updates"] < 100


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rendezvous]:
    """The only rank of its group."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "")
    rendezvous = file_rendezvous(str(tmp_path / "store"), 0, 1, 6.0)
    join_group(rendezvous, torch.device("cpu"))
    yield rendezvous
    dist.destroy_process_group()


def built(cfg: DictConfig, rendezvous: Rendezvous, folder: Path) -> ProcessCollective:
    components = build_run(cfg)
    return ProcessCollective(
        components.method,
        rendezvous=rendezvous,
        oracle=components.oracle,
        batches=components.batches,
        control=components.train_control(logger=Notes(), folder=folder, save=lambda updates, state: None),
        timeline=Timeline(1),
        clock=components.clock(),
    )


@pytest.mark.parametrize(
    ("delay", "computing", "hidden"),
    [
        pytest.param(1, 0.6, 1.0, marks=pytest.mark.slow),
        (1, 0.15, 0.5),
        pytest.param(0, 0.6, 0.0, marks=pytest.mark.slow),
    ],
)
def test_computing_hides_communication(alone: Rendezvous, tmp_path: Path, delay: int, computing: float, hidden: float):
    """Combinations travel for 0.3 s, during a step that computes longer, or half as long, or during none."""
    method = ("algorithm=dasgd", "algorithm.delay=1") if delay else ("algorithm=local_sgd",)
    slow = (f"cluster.compute.seconds={computing}", "cluster.compute.distribution=constant")
    data = ("model=linear", "dataset.limit_train=24", "dataset.limit_test=4", "run.batch_size=4", "run.epochs=1")
    cfg = compose(*method, "algorithm.tau=2", "cluster=processes", "cluster.workers=1", *slow, *data)
    executor = built(cfg, alone, tmp_path)
    executor.combiner = AsyncCollective("mean", 1, background=bool(delay), extra_seconds=0.3)
    executor.run()
    measured = executor.communication.columns()
    # Every second of six steps; with a delay the last one is still on its way at the end.
    assert 0.3 * (3 - delay) <= measured["communication_seconds"] < 0.5 * (3 - delay)
    assert measured["hidden_seconds"] / measured["communication_seconds"] == pytest.approx(hidden, abs=0.2)


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_take_their_own_statistics_back(alone: Rendezvous, tmp_path: Path, rank: int):
    executor = built(compose("algorithm=ssgd", "model=resnet8", *RUN[:4], "cluster=processes"), alone, tmp_path)
    executor.rank = rank
    each = [torch.full_like(executor.statistics, float(owner)) for owner in (0, 1)]
    state = {"methods": [executor.method.state()], "statistics": each, "totals": torch.ones(3), "travelling": []}
    others = {"communication": executor.communication.state_dict(), "step": 3}
    executor.load_state_dict(state | others | {"activity": executor.timeline.state_dict()})
    assert torch.equal(executor.statistics, each[rank])
    # Sums of losses are those of all ranks, so that one rank goes on with them.
    assert executor.oracle.totals.tolist() == [1.0 - rank] * 3
    assert executor.step == 3
