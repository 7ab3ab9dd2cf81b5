"""The parts of executors on a virtual clock: each has those that it is given, and no others are taken."""

from pathlib import Path
from typing import Any

import pytest

from runner.run_folder.timeline import Timeline
from runner.simulated.collective import SimulatedCollective
from runner.simulated.virtual_executor import VirtualExecutor
from runner.train import build
from tests.trial import Trial, compose

DATA = ("model=linear", "dataset.limit_train=12", "dataset.limit_test=4", "run.batch_size=2")


@pytest.mark.parametrize("algorithm", ["ssgd", "hogwild"])
def test_executors_have_the_runs_parts(algorithm: str, tmp_path: Path):
    trial = Trial(f"algorithm={algorithm}", *DATA, folder=tmp_path)
    executor: Any = trial.executor
    assert isinstance(executor, VirtualExecutor)
    components = trial.components
    assert (executor.oracle, executor.batches, executor.control) == (
        components.oracle,
        components.batches,
        trial.control,
    )
    assert executor.clock.compute_seconds(0, 3) == components.clock().compute_seconds(0, 3)
    assert executor.timeline.report(1.0)["workers"]


def test_unknown_and_missing_parts_are_refused():
    components = build.build_run(compose("algorithm=sgd", *DATA))
    given: dict[str, Any] = {"oracle": components.oracle, "batches": components.batches, "clock": components.clock()}
    given |= {"control": components.train_control(), "timeline": Timeline(1)}
    wrong: dict[str, Any] = given | {"colour": "red"}
    with pytest.raises(TypeError, match="colour"):
        SimulatedCollective([components.method], workers=1, **wrong)
    del given["clock"]
    with pytest.raises(TypeError, match="clock"):
        SimulatedCollective([components.method], workers=1, **given)
