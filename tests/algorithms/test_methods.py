"""What every method must pass: parametrised over the files of `conf/algorithm`, so a new one is covered at once.

`dcrun-check` runs it on methods of a user's own. docs/own_code.md says what it asks of a method.
"""

import functools
import inspect
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from algorithms.base import Collective, ParameterServer
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.run_folder import checkpoint
from tests.checked import OPTIONS
from tests.compute import use_threads
from tests.transfers import compute_late
from tests.trial import Trial, compose, equal, run_in, train

NAMES = sorted(OPTIONS)
every = pytest.mark.parametrize("name", NAMES)

CHANCE = 90.0
"""Test error of a guess among ten digits, in percent."""
NETWORKS = ("mlp", "deep")
IN_A_HURRY = ("dc_asgd_a", "local_sgd")
"""Methods that run on processes in the short suite too, one of each kind (others do so in tests of the executors)."""


def configured(name: str) -> DictConfig:
    return compose(f"algorithm={name}").algorithm


@functools.cache
def kind(name: str) -> Any:
    # Read, not composed: it is asked for every method when tests are collected, by each of pytest's processes.
    return get_class(yaml.safe_load(OPTIONS[name].read_text())["_target_"])


LINEAR = ("model=ridge", "dataset=synthetic", "dataset.classes=2", "dataset.shape=[12]", "dataset.noise=0.5")
"""The problem of methods that need one weight a feature; its samples are scaled up, and so rates are small."""
LINEAR_RATES = (1e-3, 1e-4)


def linear(name: str) -> bool:
    return kind(name).needs != "gradients"


def rates(name: str) -> tuple[float, ...]:
    return LINEAR_RATES if linear(name) else kind(name).usual_rates


def problem(name: str, network: str, train: int, test: int) -> tuple[str, ...]:
    """Return a model that the method can train, and so many samples to do it with."""
    if linear(name):
        return (*LINEAR, f"dataset.train={train}", f"dataset.test={test}")
    model = deep(name) if network == "deep" else (f"model={network}",)
    return (*model, f"dataset.limit_train={train}", f"dataset.limit_test={test}")


def chance(name: str) -> float:
    return 50.0 if linear(name) else CHANCE


def short(name: str, network: str) -> tuple[str, ...]:
    """Return thirteen batches of eight an epoch, so that four workers end it with unequal shares."""
    slow = (f"schedule.lr={LINEAR_RATES[-1]}",) if linear(name) else ()
    return (*problem(name, network, 104, 20), "run.batch_size=8", "run.epochs=2", *slow)


def shortly(name: str) -> list[Any]:
    """Return a method and the networks that it shortly trains: a deep one, with batch norm, takes its time."""
    if linear(name) or issubclass(kind(name), Pipeline) or name in IN_A_HURRY:
        return [(name, "deep")]
    return [(name, "mlp"), pytest.param(name, "deep", marks=pytest.mark.slow)]


every_short = pytest.mark.parametrize(("name", "network"), [case for name in NAMES for case in shortly(name)])


def workers(name: str, most: int) -> str:
    limit = kind(name).max_workers
    return f"cluster.workers={most if limit is None else min(most, limit)}"


def deep(name: str) -> tuple[str, ...]:
    """A deeper network that the method can train: methods that need single samples' losses take no batch norm."""
    return ("model=mlp", "model.widths=[64,32]") if kind(name).separable else ("model=resnet8",)


def passes(name: str) -> float:
    """Effective passes for four over the samples: each gradient of a batch counts."""
    return 4 * kind(name).cost.gradients


@every
def test_protocol_and_cost_are_declared(name: str):
    method = kind(name)
    assert issubclass(method, ParameterServer | Collective | SharedMemory | Pipeline)
    assert method.cost.gradients > 0
    assert 1 <= method.default_workers <= (method.max_workers or 1000)
    assert inspect.getdoc(inspect.getmodule(method)) or method.__doc__, "a docstring says what the method does"
    assert method.usual_rates and all(lr > 0 for lr in method.usual_rates)


@every
def test_configuration_lists_all_arguments(name: str):
    given = {key for key in configured(name) if key != "_target_"}
    taken = inspect.signature(kind(name).__init__).parameters
    assert given == set(taken) - {"self"}
    kinds = {parameter.kind for key, parameter in taken.items() if key != "self"}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY}


@every
def test_values_that_make_no_sense_are_refused(name: str):
    cfg = configured(name)
    wrong = []
    for key, value in cfg.items():
        if isinstance(value, bool) or key == "_target_":
            continue
        if isinstance(value, int | float):
            wrong += [(key, -1), (key, math.nan), (key, math.inf)]
        elif isinstance(value, str):
            wrong.append((key, "nonsense"))
    for key, value in wrong:
        options = {**OmegaConf.to_container(cfg), key: value}  # type: ignore[dict-item]
        del options["_target_"]
        with pytest.raises(ValueError, match=rf"^algorithm\.{key}=.*; allowed: "):
            kind(name)(**options)


@every
def test_an_unknown_option_is_refused(name: str):
    with pytest.raises(Exception, match="unexpected keyword argument 'lambda9'"):
        instantiate(configured(name), lambda9=1)


def learned(name: str) -> list[Any]:
    """Return a method and what it must learn, with a deep network in the short suite for one of each kind only."""
    if linear(name):
        return [(name, "ridge")]
    quick = name in ("ddg", *IN_A_HURRY)
    return [(name, "mlp"), pytest.param(name, "deep", marks=() if quick else pytest.mark.slow)]


@pytest.mark.parametrize(("name", "network"), [case for name in NAMES for case in learned(name)])
def test_method_learns(name: str, network: str, tmp_path: Path):
    size = (*problem(name, network, 600, 200), "run.batch_size=16", f"run.epochs={passes(name)}")
    errors = []
    for lr in rates(name):
        run = train(f"algorithm={name}", *size, f"schedule.lr={lr}", folder=tmp_path)
        errors.append(run.notes.rows[-1]["test_error"])
        if errors[-1] < chance(name) / 2:
            break
    assert min(errors) < chance(name) / 2, f"test errors {errors} at learning rates {rates(name)}"


@every_short
def test_same_seed_gives_same_bits(name: str, network: str, tmp_path: Path):
    first = train(f"algorithm={name}", *short(name, network), folder=tmp_path)
    second = train(f"algorithm={name}", *short(name, network), folder=tmp_path)
    assert first.sha256 == second.sha256
    assert equal(first.state, second.state)
    assert first.notes.rows == second.notes.rows
    other = train(f"algorithm={name}", *short(name, network), "seed=1", "run.epochs=0.5", folder=tmp_path)
    assert other.sha256 != first.sha256
    # A push is not cut short: where it costs more than a pass over its samples, it may end a little later.
    assert 2 <= first.control.epoch <= 2 + (kind(name).cost.gradients - 1) * 8 / 104


@pytest.mark.parametrize("stop_after", [pytest.param(1, marks=pytest.mark.slow), 5])
@every_short
def test_continued_run_gives_the_same_bits(name: str, network: str, stop_after: int, tmp_path: Path):
    overrides = (f"algorithm={name}", *short(name, network), "run.checkpoint_every=100")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = train(*overrides, folder=tmp_path / "a")
    stopped = Trial(*overrides, folder=tmp_path / "b", stop_after=stop_after)
    state = stopped.stopped()
    assert state["course"]["updates"] == stop_after < expected.control.updates
    checkpoint.save(tmp_path / "b", stop_after, state, keep=1)
    found = checkpoint.newest_intact(tmp_path / "b")
    assert found is not None
    continued = Trial(*overrides, folder=tmp_path / "b").resume(found[0]).run()
    assert continued.sha256 == expected.sha256
    assert equal(continued.state, expected.state)
    assert stopped.notes.rows + continued.notes.rows == expected.notes.rows
    assert torch.equal(continued.executor.running_statistics(), expected.executor.running_statistics())


SIDE_BY_SIDE = [name for name in NAMES if kind(name).max_workers is None]
QUICK = (("dc_asgd_a", "mlp"), ("dis_dfsdca", "mlp"), ("dasgd", "deep"), ("shared_asysvrg", "mlp"), ("ddg", "mlp"))
"""Of them, one of each kind for the short suite: halves that any process does for, halves with a state, and so on."""


@pytest.mark.parametrize(
    ("name", "network"),
    [
        pytest.param(name, network, marks=[] if (name, network) in QUICK else pytest.mark.slow)
        for network in NETWORKS
        for name in SIDE_BY_SIDE
    ],
)
def test_compute_processes_change_no_bit(name: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped with two or more compute processes, a run goes on with one as if it had had one all the time."""
    use_threads(monkeypatch)
    size = (*problem(name, network, 104, 20), "run.batch_size=8", "run.epochs=2", "run.checkpoint_every=100")
    special = (f"schedule.lr={LINEAR_RATES[-1]}",) if linear(name) else ()
    if kind(name).cuts_network:
        # A block for every module, whose optimizer has a state.
        special = ("algorithm.momentum=0.9", *(("model.widths=[32,32,32]",) if network == "mlp" else ()))
    overrides = (f"algorithm={name}", *size, *special, "cluster.network.latency=0.2", "cluster.workers=4")
    counts = (2, 3, 4) if network == "deep" and (name, network) not in QUICK else (2,)
    expected = train(*overrides, folder=made(tmp_path / "1"))
    told = (tmp_path / "1" / "timeline.jsonl").read_text()
    for count in counts:
        several, folder = f"run.compute_processes={count}", made(tmp_path / str(count))
        whole = train(*overrides, several, folder=folder)
        assert_same(whole, expected)
        assert whole.notes.rows == expected.notes.rows
        assert [note["train_loss"] for note in whole.notes.updates] == [
            note["train_loss"] for note in expected.notes.updates
        ]
        assert (folder / "timeline.jsonl").read_text() == told
    stopped = Trial(*overrides, f"run.compute_processes={counts[0]}", folder=made(tmp_path / "a"), stop_after=3)
    state = stopped.stopped()
    continued = Trial(*overrides, folder=tmp_path / "a").resume(state).run()
    assert_same(continued, expected)
    assert stopped.notes.rows + continued.notes.rows == expected.notes.rows
    state = Trial(*overrides, folder=made(tmp_path / "b"), stop_after=3).stopped()
    again = Trial(*overrides, f"run.compute_processes={counts[-1]}", folder=tmp_path / "b").resume(state).run()
    assert_same(again, expected)


@pytest.mark.parametrize(
    "name",
    [
        name if name in IN_A_HURRY else pytest.param(name, marks=pytest.mark.slow)
        for name in SIDE_BY_SIDE
        if not kind(name).cuts_network
    ],
)
def test_late_copies_change_no_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As on GPUs, where each process has tensors of its own, steps are captured, and copies are waited for."""
    size = (*problem(name, "mlp", 56, 20), "run.batch_size=8", "run.epochs=2", "run.checkpoint_every=100")
    slow = (f"schedule.lr={LINEAR_RATES[-1]}",) if linear(name) else ()
    # Local steps after a combination, in the few that there are.
    often = ("algorithm.tau=2",) if "tau" in configured(name) else ()
    overrides = (f"algorithm={name}", *size, *slow, *often, "cluster.network.latency=0.2", "cluster.workers=4")
    expected = train(*overrides, folder=tmp_path)
    stopped = Trial(*overrides, folder=tmp_path, stop_after=2)
    state = stopped.stopped()
    use_threads(monkeypatch)
    used = compute_late(monkeypatch)
    whole = train(*overrides, "run.compute_processes=2", folder=tmp_path)
    assert_same(whole, expected)
    assert whole.notes.rows == expected.notes.rows
    continued = Trial(*overrides, "run.compute_processes=3", folder=tmp_path).resume(state).run()
    assert_same(continued, expected)
    assert len(used) == 3 + 4
    assert all(each.closed for each in used)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def assert_same(run: Trial, expected: Trial) -> None:
    assert run.sha256 == expected.sha256
    assert equal(run.state, expected.state)
    assert torch.equal(run.executor.running_statistics(), expected.executor.running_statistics())
    assert run.control.seconds == expected.control.seconds


@pytest.mark.parametrize(
    "name",
    [name if name in IN_A_HURRY else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_method_learns_on_processes(name: str, tmp_path: Path):
    size = (*problem(name, "mlp", 600, 200), "run.batch_size=16", "run.epochs=4")
    errors = []
    for lr in rates(name):
        folder = tmp_path / str(lr)
        overrides = (f"algorithm={name}", "cluster=processes", workers(name, 2), *size, f"schedule.lr={lr}")
        code, summary = run_in(folder, *overrides)
        assert code == 0
        assert summary["status"] == "completed"
        assert summary["workers_lost"] == 0
        assert 4 <= summary["epochs"] <= 4 + (kind(name).cost.gradients - 1) * 16 / 600
        errors.append(summary["final_test_error"])
        shutil.rmtree(folder)
        if errors[-1] < chance(name) / 2:
            break
    assert min(errors) < chance(name) / 2, f"test errors {errors} at learning rates {rates(name)}"
