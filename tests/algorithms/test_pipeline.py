"""What all pipeline methods share."""

from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("name", ["ddg", "fr", "dni"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_single_module_is_bp(name: str, optimizer: str, tmp_path: Path):
    common = (*SHORT, "cluster.workers=1", f"algorithm.optimizer={optimizer}", "schedule.lr=0.01")
    assert train(f"algorithm={name}", *common, folder=tmp_path).sha256 == (
        train("algorithm=bp", *common, folder=tmp_path).sha256
    )


@pytest.mark.parametrize("extra", [("algorithm=ddg",), ("algorithm=ddg", "algorithm.weights=current")])
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
