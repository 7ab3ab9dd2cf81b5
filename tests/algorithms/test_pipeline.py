"""What all pipeline methods share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from algorithms.base import Step
from algorithms.bp import BP
from algorithms.ddg import DDG
from algorithms.pipeline import StageInfo
from tests.trial import Trial, train

SHORT = ("model=resnet8", "dataset.limit_train=44", "dataset.limit_test=20", "run.batch_size=8", "run.epochs=2")
"""Six batches an epoch, the last of four."""


@pytest.mark.parametrize("momentum", ["0.0", "0.9"])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_bp_in_modules_is_sgd(workers: int, momentum: str, tmp_path: Path):
    common = (*SHORT, f"algorithm.momentum={momentum}", "schedule.lr=0.05")
    whole = train("algorithm=sgd", *common, folder=tmp_path)
    pieces = train("algorithm=bp", f"cluster.workers={workers}", *common, folder=tmp_path)
    assert pieces.sha256 == whole.sha256
    assert torch.equal(pieces.executor.running_statistics(), whole.executor.running_statistics())
    scores = ("train_loss", "train_error", "test_loss", "test_error")
    for ours, theirs in zip(pieces.notes.rows, whole.notes.rows, strict=True):
        assert [ours[name] for name in scores] == [theirs[name] for name in scores]


@pytest.mark.parametrize("name", ["ddg", "fr", "dni", "pipedream"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_single_module_is_bp(name: str, optimizer: str, tmp_path: Path):
    common = (*SHORT, "cluster.workers=1", f"algorithm.optimizer={optimizer}", "schedule.lr=0.01")
    assert train(f"algorithm={name}", *common, folder=tmp_path).sha256 == (
        train("algorithm=bp", *common, folder=tmp_path).sha256
    )


@pytest.mark.parametrize(
    "extra",
    [
        ("algorithm=ddg",),
        ("algorithm=ddg", "algorithm.weights=current"),
        ("algorithm=pipedream", "algorithm.weights=vertical"),
        pytest.param(("algorithm=pipedream", "algorithm.weights=current"), marks=pytest.mark.slow),
        ("algorithm=pipedream_2bw",),
    ],
)
def test_graphs_in_flight_survive_checkpoint(extra: tuple[str, ...], tmp_path: Path):
    common = (*SHORT, *extra, "cluster.workers=4", "algorithm.optimizer=adam", "schedule.lr=0.01")
    common += ("run.checkpoint_every=100",)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = train(*common, folder=tmp_path / "a")
    for stop in (2, 7):
        state = Trial(*common, folder=tmp_path / "b", stop_after=stop).stopped()
        continued = Trial(*common, folder=tmp_path / "b").resume(state).run()
        assert continued.sha256 == expected.sha256
        assert continued.executor.columns() == expected.executor.columns()


COMMON = {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005}
COMMON |= {"beta1": None, "beta2": None, "epsilon": None, "split": ["stage2.0"]}


@pytest.mark.parametrize(
    ("target", "own"),
    [
        ("bp.BP", {}),
        ("ddg.DDG", {"weights": "current", "start": "zero"}),
        ("fr.FR", {"start": "skip", "statistics": "twice"}),
        ("dni.DNI", {"synthesizer_lr": 0.01}),
    ],
)
def test_recorded_configuration_still_builds(target: str, own: dict[str, Any]):
    """The keys are those of run folders written while every method listed the optimizer's arguments itself."""
    method = instantiate(OmegaConf.create({"_target_": f"algorithms.{target}", **COMMON, **own}))
    for name, value in (COMMON | own).items():
        assert getattr(method, name) == value


def test_arguments_are_keywords_only():
    with pytest.raises(TypeError, match="positional"):
        DDG("sgd")  # type: ignore[misc]


def test_skipped_update_has_no_direction():
    method = BP(momentum=0.9)
    method.setup(torch.ones(3), StageInfo(rank=0, workers=1, outputs=(3,), classes=3, seed=0))
    method.keeps_direction = True
    g = torch.tensor([1.0, 2.0, 3.0])
    method.optimizer_step(g.clone(), Step(lr=0.1))
    assert method.direction is not None
    assert torch.equal(method.direction, g)
    before = {name: tensor.clone() for name, tensor in method.state().items()}
    method.skip_update()
    assert method.direction is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state().items())
