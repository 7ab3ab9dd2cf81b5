"""The lists of measured functions name functions that there are."""

from pathlib import Path

import pytest

from runner.train.executors import topology_of
from tests.trial import Trial

RUN = ("model=mlp", "dataset.limit_train=16", "dataset.limit_test=8", "run.batch_size=2", "cluster.workers=2")


def check(trial: Trial) -> None:
    listed = list(topology_of(type(trial.components.method)).simulated_calls(trial.executor))
    assert listed
    assert [timed for timed in listed if not callable(getattr(timed.owner, timed.name, None))] == []
    assert len({(id(timed.owner), timed.name) for timed in listed}) == len(listed), "nothing is measured twice"


@pytest.mark.parametrize("algorithm", ["asgd", "ssgd", "hogwild", "ddg"])
def test_every_listed_function_is_there(algorithm: str, tmp_path: Path):
    check(Trial(*RUN, f"algorithm={algorithm}", folder=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "part"), [("asgd", "halves"), ("ssgd", "steps"), ("hogwild", "directions"), ("fr", "modules")]
)
def test_every_function_around_a_pool_is_there(algorithm: str, part: str, tmp_path: Path):
    trial = Trial(*RUN, f"algorithm={algorithm}", "run.compute_processes=2", folder=tmp_path)
    try:
        check(trial)
    finally:
        getattr(trial.executor, part).close()
