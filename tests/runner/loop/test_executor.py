"""What executors and loggers have by default, and what an executor must implement."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.loop.executor import Executor, NullLogger
from runner.loop.schedule import Schedule
from runner.loop.train_control import TrainControl
from runner.run_folder.timeline import Timeline

REQUIRED = {"run", "weights", "running_statistics", "method_states", "state_dict", "load_state_dict"}


class Smallest(Executor):
    """Implements what is asked for, and nothing else."""

    def __init__(self) -> None:
        self.timeline = Timeline(1)

    def run(self) -> None:
        raise AssertionError("nobody runs it")

    def weights(self) -> Tensor:
        return torch.ones(2)

    def running_statistics(self) -> Tensor:
        return torch.empty(0)

    def method_states(self) -> list[dict[str, Tensor]]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"step": 3}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.restored = state


def test_executors_add_no_columns_and_lose_nobody():
    executor = Smallest()
    assert executor.columns() == {}
    assert executor.workers_lost == 0


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_what_an_executor_must_do_is_abstract(name: str):
    assert Executor.__abstractmethods__ == REQUIRED
    rest = {key: value for key, value in vars(Smallest).items() if key in REQUIRED - {name}}
    with pytest.raises(TypeError, match=name):
        type("Partial", (Executor,), rest)()


def test_ranks_without_a_log_evaluate_and_save(tmp_path: Path):
    """Their control writes nothing down, and asks the executor for its state like any other."""
    saved: list[Any] = []
    control = TrainControl(
        samples=4,
        epochs=1,
        eval_every=1,
        checkpoint_every=1,
        schedule=Schedule(lr=0.1, workers=1),
        folder=tmp_path,
        save=lambda updates, state: saved.append((updates, state["executor"])),
    )
    assert isinstance(control.logger, NullLogger)
    executor = Smallest()
    control.advance(4, 1.0, None)
    totals = torch.tensor([1.0, 0.0, 4.0], dtype=torch.float64)
    control.evaluate(executor.weights(), executor.running_statistics(), totals, executor, finished=True)
    assert saved == [(1, {"step": 3})]
    assert not totals.any()
