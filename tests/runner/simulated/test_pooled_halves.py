import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from algorithms.asgd import ASGD, GradientWorker
from algorithms.base import Batch, Fields, Message, Oracle
from algorithms.dc_asgd import BackupWorker
from runner.config.errors import InputError
from runner.simulated import compute_pool, pooled_halves, write_directions
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


@pytest.mark.parametrize(("algorithm", "module"), [("asgd", pooled_halves), ("hogwild", write_directions)])
def test_tasks_begin_in_the_order_of_the_clock(
    algorithm: str, module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Waited for next is what was said to be needed first, or the next task of the worker that was just served."""
    asked: list[tuple[int, list[int]]] = []

    class Watched(compute_pool.ComputePool):
        def result(self, key: int, fields: Fields) -> compute_pool.Result:
            asked.append((key, [other for other in self.order() if other != key]))
            return super().result(key, fields)

    use_threads(monkeypatch)
    monkeypatch.setattr(module, "ComputePool", Watched)
    train(*GIVEN, f"algorithm={algorithm}", "run.compute_processes=2", folder=tmp_path)
    assert len(asked) == 16
    for (key, others), (later, _) in itertools.pairwise(asked[:-2]):
        assert later == key or later == others[0]
