from pathlib import Path

import pytest
import torch
from torch import Tensor

from algorithms.asgd import ASGD, GradientWorker
from algorithms.base import Batch, Message, Oracle
from algorithms.dc_asgd import BackupWorker
from runner.config.errors import InputError
from runner.simulated.pooled_halves import serves_all
from tests.compute import use_threads
from tests.trial import train

GIVEN = ("algorithm=asgd", "model=mlp", "dataset.limit_train=64", "dataset.limit_test=20", "run.batch_size=8")
GIVEN += ("run.epochs=2", "cluster.workers=3", "cluster.stragglers.probability=0.3")


class Heavy(GradientWorker):
    """A worker with momentum of its own."""

    def __init__(self) -> None:
        self.v: Tensor | None = None

    def work(self, oracle: Oracle, pulled: Message, batch: Batch) -> Message:
        g = super().work(oracle, pulled, batch)["g"]
        self.v = g.clone() if self.v is None else self.v.mul_(0.5).add_(g)
        return {"g": self.v}


def test_halves_that_keep_nothing_serve_all():
    assert serves_all(GradientWorker())
    assert serves_all(BackupWorker())
    assert not serves_all(Heavy()), "what the base class says is of its own work"


def test_a_half_stays_with_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Three workers on two processes, whose halves have momentum: each goes on with its own."""
    use_threads(monkeypatch)
    plain = train(*GIVEN, folder=tmp_path)
    monkeypatch.setattr(ASGD, "worker", lambda self, worker: Heavy())
    expected = train(*GIVEN, folder=tmp_path)
    assert expected.sha256 != plain.sha256
    assert train(*GIVEN, "run.compute_processes=2", folder=tmp_path).sha256 == expected.sha256


def test_a_wrong_message_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    use_threads(monkeypatch)
    monkeypatch.setattr(GradientWorker, "work", lambda *arguments: {"h": torch.zeros(1)})
    with pytest.raises(InputError, match=r"^GradientWorker, push: field h is not declared; allowed: g$"):
        train(*GIVEN, "run.compute_processes=2", folder=tmp_path)
