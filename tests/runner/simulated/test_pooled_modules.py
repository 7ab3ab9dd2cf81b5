"""Modules side by side: whole states are those of one process, passes overlap, and a run stops where one would."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Step
from algorithms.ddg import DDG
from algorithms.pipeline import Features, Stage
from runner.loop.stop import Stop
from runner.simulated.arena import NotShareable
from tests.compute import use_threads
from tests.trial import Trial, train

RUN = ("model=mlp", "model.widths=[32,32]", "dataset.limit_train=36", "dataset.limit_test=10", "run.batch_size=8")
RUN += ("run.epochs=2", "cluster.workers=3")
TWO = "run.compute_processes=2"


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    use_threads(monkeypatch)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other) and one.stride() == other.stride()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(("algorithm=ddg", "algorithm.optimizer=adam"), marks=pytest.mark.slow),
        pytest.param(("algorithm=fr", "algorithm.start=skip", "model=resnet8"), marks=pytest.mark.slow),
        pytest.param(("algorithm=dni", "model=resnet8"), marks=pytest.mark.slow),
        pytest.param(("algorithm=bp", "algorithm.momentum=0.9"), marks=pytest.mark.slow),
        ("algorithm=gpipe", "algorithm.order=1f1b", "algorithm.micro_batches=5"),
        pytest.param(("algorithm=pipedream", "algorithm.weights=vertical"), marks=pytest.mark.slow),
        pytest.param(("algorithm=pipedream_2bw", "algorithm.micro_batches=5"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_checkpoints_are_those_of_one_process(given: tuple[str, ...], tmp_path: Path):
    """Every tensor that waits in any module, at two evaluations within the run and at its end."""
    run = RUN if "model=resnet8" not in given else tuple(key for key in RUN if not key.startswith("model"))
    one, two = (train(*run, *given, "run.eval_every=0.7", *more, folder=tmp_path) for more in ((), (TWO,)))
    assert len(one.saved) == len(two.saved) == 3
    for (updates, expected), (number, found) in zip(one.saved, two.saved, strict=True):
        assert updates == number
        assert same(found["executor"], expected["executor"])


class Meeting:
    """Two calls that are made, each in its iterations, only while the other one is made too."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.met = 0

    def wait(self) -> None:
        self.barrier.wait(20)
        self.met += 1


def test_backward_passes_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    meeting, backward = Meeting(), DDG.backward

    def meet(self: DDG, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        meeting.wait()
        return backward(self, stage, delta, step)

    monkeypatch.setattr(DDG, "backward", meet)
    train(*RUN, "algorithm=ddg", "cluster.workers=2", TWO, folder=tmp_path)
    assert meeting.met == 2 * 10


def test_next_batch_goes_forward_during_backward_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first module plays batch t + 1 while the last one is at its backward pass of batch t; not in iteration 0."""
    meeting, forward, backward, steps = Meeting(), DDG.forward, DDG.backward, 10
    made: list[int] = []

    def meet_forward(self: DDG, stage: Stage, features: Features) -> Tensor:
        if self.rank == 0 and features.number > 1:
            meeting.wait()
        return forward(self, stage, features)

    def meet_backward(self: DDG, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        if self.last:
            made.append(len(made))
            if 0 < made[-1] < steps - 1:
                meeting.wait()
        return backward(self, stage, delta, step)

    monkeypatch.setattr(DDG, "forward", meet_forward)
    monkeypatch.setattr(DDG, "backward", meet_backward)
    # An evaluation waits for all that is under way: there is one, at the end.
    train(*RUN, "algorithm=ddg", "cluster.workers=2", "run.eval_every=2", TWO, folder=tmp_path)
    assert meeting.met == 2 * (steps - 2)


@pytest.mark.slow
def test_diverged_run_ends_at_the_same_weights(tmp_path: Path):
    """The loss is found to be infinite in the middle, when backward passes are under way."""
    given = (*RUN, "algorithm=fr", "run.epochs=20", "run.eval_every=20", "schedule.lr=1e8")
    trials = [Trial(*given, *more, folder=tmp_path) for more in ((), (TWO,))]
    for trial in trials:
        with pytest.raises(Stop, match="diverged"):
            trial.run()
    one, two = trials
    assert one.control.updates == two.control.updates == 32
    assert one.sha256 == two.sha256
    assert one.executor.columns() == two.executor.columns()
    modules: Any = two.executor
    assert not modules.modules._backward, "nothing was under way when the processes were ended"


def counting(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """Let the last module count losses in its backward passes from iteration `first` on."""
    backward, made = DDG.backward, dict[int, int]()

    def count(self: DDG, stage: Any, delta: Tensor | None, step: Step) -> Tensor | None:
        made[id(self)] = made.get(id(self), -1) + 1
        if self.last and made[id(self)] >= first:
            features = Features(0, torch.ones(1, 32), torch.zeros(1, dtype=torch.int64))
            stage.record(self.w, features, track=False)
        return backward(self, stage, delta, step)

    monkeypatch.setattr(DDG, "backward", count)


LOOKED_AT = (*RUN, "algorithm=ddg", "run.epochs=7", "run.eval_every=7", "schedule.lr=0.1")
"""So long that the loss is looked at once, within the run."""


@pytest.mark.slow
def test_losses_of_backward_passes_count_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counting(monkeypatch, first=0)
    one, two = (train(*LOOKED_AT, *more, folder=tmp_path) for more in ((), (TWO,)))
    shown = [[update["train_loss"] for update in run.notes.updates] for run in (one, two)]
    assert shown[0] == shown[1]
    assert shown[0][-1] is not None
    assert one.notes.rows == two.notes.rows


def test_losses_that_begin_late_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counting(monkeypatch, first=2)
    with pytest.raises(NotShareable, match=r"^run.compute_processes: a module begins to count .* mid-run; allowed: 1$"):
        train(*RUN, "algorithm=ddg", TWO, folder=tmp_path)
