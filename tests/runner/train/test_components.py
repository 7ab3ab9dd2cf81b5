from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from runner.config.errors import InputError
from runner.gradients.diagnostics import LayerLog
from runner.train.build import build_run
from runner.train.components import RunComponents
from tests.trial import Trial, compose

SMALL = ("model=mlp", "model.widths=[8]", "dataset.limit_train=60", "dataset.limit_test=20", "run.batch_size=8")

TWO_CLASSES = ("dataset=synthetic", "dataset.shape=[6]", "dataset.classes=2", "dataset.train=40", "dataset.test=10")


def components(*overrides: str) -> RunComponents:
    return build_run(compose(*SMALL, *overrides))


def test_new_methods_are_instances_apart():
    run = components("algorithm=ssgd", "algorithm.momentum=0.9", "cluster.workers=3")
    methods = run.methods()
    assert methods[0] is run.method
    assert len({id(method) for method in methods}) == 3
    for rank, method in enumerate(methods):
        method.start(torch.zeros(4), rank, 3)
    assert {tuple(method.state()) for method in methods} == {tuple(methods[0].state())}


def test_partition_is_made_once():
    run = components("algorithm=ddg", "cluster.workers=2")
    assert run.partition is run.partition
    assert len(run.partition.stages) == 2


def test_control_counts_this_run():
    control = components("run.epochs=3", "run.eval_every=0.5", "run.checkpoint_every=2").train_control()
    assert (control.samples, control.epochs, control.eval_every, control.checkpoint_every) == (60, 3, 0.5, 2)
    assert components("run.eval_every=0.5").train_control().checkpoint_every == 0.5


def test_no_test_samples_no_evaluator():
    assert components().evaluator() is not None
    run = components()
    run.dataset.test = range(0)
    assert run.evaluator() is None


def test_no_validation_split_no_validator():
    assert components().validator() is None
    run = components("dataset.validation=0.2")
    assert (run.samples, run.train_control().samples) == (48, 48)
    validator = run.validator()
    assert validator is not None
    assert validator.split is run.dataset.validation
    assert len(validator.split) == 12
    # A data set of the user's own need not have the attribute.
    del run.dataset.validation
    assert run.validator() is None


@pytest.mark.parametrize("algorithm", ["dc_asgd_a", "ssgd", "hogwild", "ddg"])
def test_validation_is_scored_and_trains_nothing(algorithm: str, tmp_path: Path):
    given = (*SMALL, f"algorithm={algorithm}", "dataset.validation=0.2", "run.epochs=2", "cluster.workers=2")
    scored = Trial(*given, folder=tmp_path)
    blind = Trial(*given, folder=tmp_path)
    blind.control.validator = None
    assert scored.run().sha256 == blind.run().sha256
    left = [{key: value for key, value in row.items() if "validation" not in key} for row in scored.notes.rows]
    assert left == blind.notes.rows
    for row in scored.notes.rows:
        assert {key for key in row if "validation" in key} == {"validation_loss", "validation_error"}
        # Errors of 12 samples.
        assert row["validation_error"] * 12 / 100 == pytest.approx(round(row["validation_error"] * 12 / 100))
    expected = scored.components.validator()(scored.executor.weights(), scored.executor.running_statistics())  # type: ignore[misc]
    assert scored.notes.rows[-1]["validation_loss"] == expected.loss


def test_validation_of_numbers_has_a_loss_alone(tmp_path: Path):
    run = Trial("algorithm=svrg", "model=pca_step", "dataset=unit_vectors", "dataset.samples=60", "dataset.features=6",
                "dataset.validation=10", "run.epochs=3", "schedule.lr=1e-3", folder=tmp_path).run()  # fmt: skip
    assert all("validation_loss" in row and "validation_error" not in row for row in run.notes.rows)
    assert run.components.samples == 50


def test_diagnostics_are_observers(tmp_path: Path):
    assert components().observers(tmp_path, 0) == []
    [observer] = components("run.diagnostics=[largest_rate]", "run.diagnostic_samples=7").observers(tmp_path, 0)
    assert isinstance(observer, LayerLog)
    assert len(observer.ids) == 7


def test_objective_reads_the_methods_alone(tmp_path: Path):
    """Not a whole checkpoint, whose tensors would be gathered or copied for one of them."""
    trial = Trial(
        "algorithm=cocoa_plus", "model=ridge", *TWO_CLASSES, "run.batch_size=5", "run.epochs=1", folder=tmp_path
    )
    trial.run()
    executor: Any = trial.executor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(executor), "state_dict", lambda self: pytest.fail("the whole state was taken"))
        found = trial.components.measure(executor.weights(), executor)
    assert found["duality_gap"] >= 0
    assert found["primal"] - found["dual"] == pytest.approx(found["duality_gap"])


@pytest.mark.parametrize(
    ("cluster", "record", "records"),
    [
        ("processes", "null", True),
        ("processes", "false", False),
        ("simulated", "null", False),
        ("simulated", "true", True),
    ],
)
def test_processes_record_by_default(cluster: str, record: str, records: bool, tmp_path: Path):
    run = components("algorithm=asgd", f"cluster={cluster}", f"cluster.record={record}")
    assert (run.recorder(tmp_path) is not None) is records


def test_model_without_the_objective_is_refused():
    with pytest.raises(InputError, match=r"^model=mlp: algorithm=cocoa_plus needs a convex loss .*; allowed: ridge, "):
        components("algorithm=cocoa_plus")


def test_objective_without_the_others_states_is_not_told(tmp_path: Path):
    """A rank may be lost before anything was gathered, as the dual variables."""
    components = build_run(compose("algorithm=cocoa_plus", "model=ridge", *TWO_CLASSES, "run.batch_size=5"))
    executor: Any = SimpleNamespace(method_states=list)
    assert components.measure(components.oracle.replica.weights, executor) == {}
