"""Every rule of `runner.config.validation`: values out of range and keys that contradict each other."""

import math
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

from runner.config import schema, validation
from runner.config.errors import InputError

ONE_CYCLE = {
    "schedule__kind": "one_cycle",
    "schedule__lr": 0.01,
    "schedule__lr_start": 1e-4,
    "schedule__lr_end": 1e-4,
    "schedule__rise": 0.3,
}


def whole(**values: Any) -> DictConfig:
    """Return a valid configuration with values set by their dotted keys (`__` for a dot)."""
    cfg = OmegaConf.structured(schema.Config)
    for group in ("algorithm", "model", "dataset"):
        cfg[group] = {"_target_": f"some.{group}"}
    for key, value in values.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def test_defaults_are_valid():
    validation.check(whole())


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("seed", -1, 0),
        ("run.name", "../up", "a/b-1.x"),
        ("run.name", "", "a"),
        ("run.name", "/root", "a"),
        ("run.epochs", 0.0, 0.5),
        ("run.epochs", float("inf"), 160.0),
        ("run.epochs", float("nan"), 1.0),
        ("run.batch_size", 0, 1),
        ("run.eval_batch_size", 0, 1),
        ("run.keep_checkpoints", 0, 1),
        ("run.eval_every", 0.0, 0.1),
        ("run.checkpoint_every", 0.0, None),
        ("run.threads", 0, None),
        ("run.micro_batch", 0, None),
        ("run.target_loss", 0.0, None),
        ("run.divergence_factor", 1.0, 1.5),
        ("run.divergence_factor", math.inf, None),
        ("run.diagnostics", ["weights"], ["largest_rate"]),
        ("run.diagnostics", ["largest_rate", "largest_rate"], []),
        ("run.diagnostic_samples", 0, 1),
        ("run.device", "gpu", "cuda:1"),
        ("run.precision", "fp16", "bf16"),
        ("run.capture", "always", "auto"),
        ("run.capture", True, "auto"),
        ("run.resume", 3, "outputs/a"),
        ("run.resume", {"a": 1}, True),
        ("cluster.kind", "real", "processes"),
        ("cluster.workers", 0, None),
        ("cluster.timeout", 0.0, 1.0),
        ("cluster.compute.distribution", "normal", "gamma"),
        ("cluster.compute.seconds", 0.0, 0.1),
        ("cluster.compute.seconds", float("nan"), 0.1),
        ("cluster.compute.jitter", 1.0, 0.0),
        ("cluster.compute.jitter", -0.1, 0.5),
        ("cluster.compute.sigma", -0.1, 0.0),
        ("cluster.compute.cv_task", -0.1, 0.0),
        ("cluster.compute.cv_machine", float("nan"), 0.0),
        ("cluster.compute.speeds", [1.0, 0.0], [1.0, 2.0]),
        ("cluster.stragglers.probability", 1.1, 1.0),
        ("cluster.stragglers.probability", -0.1, 0.0),
        ("cluster.stragglers.extra", [2.0, 1.0], [1.0, 1.0]),
        ("cluster.stragglers.extra", [1.0], [0.0, 1.0]),
        ("cluster.stragglers.extra", [-1.0, 1.0], [0.0, 1.0]),
        ("cluster.stragglers.workers", [-1], [0, 3]),
        ("cluster.network.latency", -1.0, 0.0),
        ("cluster.network.latency", float("inf"), 0.5),
        ("cluster.network.bandwidth", 0.0, None),
        ("cluster.network.allreduce", "tree", "linear"),
        ("cluster.network.server_seconds", -1.0, 0.0),
        ("schedule.kind", "cosine", "multistep"),
        ("schedule.lr", 0.0, 1e-6),
        ("schedule.gamma", 0.0, 0.1),
        ("schedule.warmup_epochs", -1.0, 0.0),
        ("schedule.warmup_from", "half", "zero"),
        ("schedule.base_batch", 0, 128),
        ("run.plot_schedule", "lr", "a/lr.svg"),
        ("run.plot_schedule", "lr.jpeg", "lr.pdf"),
        ("logger.kind", "tensorboard", "none"),
        ("logger.mode", "on", "offline"),
        ("logger.mode", "online", "offline"),
        ("logger.project", "mine", "dcrun"),
        ("logger.tracking_uri", "sqlite:///a.db", None),
    ],
)
def test_out_of_range_is_refused_by_name(key: str, value: object, good: object):
    validation.check(whole(**{key.replace(".", "__"): good}))
    cfg = whole()
    OmegaConf.update(cfg, key, value)
    with pytest.raises(InputError) as caught:
        validation.check(cfg)
    line = str(caught.value)
    assert line.startswith(f"{key}=")
    assert "; allowed: " in line
    assert "\n" not in line


def test_loggers_take_their_own_keys():
    validation.check(whole(logger__kind="wandb", logger__mode="online", logger__project="mine"))
    validation.check(whole(logger__mlflow=True, logger__project="mine", logger__tracking_uri="sqlite:///a.db"))


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"cluster__workers": 3, "cluster__compute__speeds": [1.0, 2.0]},
            "cluster.compute.speeds=[1,2]: has 2",
        ),
        (
            {"cluster__workers": 1, "cluster__compute__speeds": [1.0, 2.0]},
            "cluster.compute.speeds=[1,2]: has 2",
        ),
        (
            {"cluster__workers": 3, "cluster__stragglers__workers": [3]},
            "cluster.stragglers.workers=[3]: there is no worker 3",
        ),
        (
            {"run__eval_every": 2.0, "run__checkpoint_every": 1.0},
            "run.checkpoint_every=1: checkpoints are written at evaluations, and run.eval_every=2; allowed: 2 or more",
        ),
        ({"schedule__milestones": [1.0]}, "schedule.milestones=[1]: schedule.kind=constant has no milestones"),
        (
            {"schedule__kind": "multistep", "schedule__milestones": [2.0, 1.0]},
            "schedule.milestones=[2,1]: cannot be milestones",
        ),
        (
            {"schedule__kind": "multistep", "schedule__milestones": [1.0, 1.0]},
            "schedule.milestones=[1,1]: cannot be milestones",
        ),
        (
            {"cluster__kind": "replay", "cluster__trace": "a", "cluster__network__latency": 0.1},
            "cluster.network.latency=0.1: would do nothing; allowed: with cluster=simulated or",
        ),
        (
            {"cluster__kind": "processes", "cluster__compute__seconds": None, "cluster__compute__jitter": 0.2},
            "cluster.compute.jitter=0.2: would do nothing; allowed: with a number of cluster.compute.seconds",
        ),
        (
            {"cluster__compute__seconds": None},
            "cluster.compute.seconds=null: a simulated worker needs a computing time",
        ),
        (
            {"cluster__kind": "replay", "cluster__trace": "a", "cluster__compute__jitter": 0.2},
            "cluster.compute.jitter=0.2: would do nothing; allowed: with cluster=simulated or",
        ),
        (
            {"cluster__kind": "processes", "cluster__compute__delays": "a.csv"},
            "cluster.compute.delays=a.csv: would do nothing: it drives the virtual clock; allowed: with cluster=simul",
        ),
        (
            {"cluster__kind": "replay", "cluster__trace": "a", "cluster__compute__delays": "a.csv"},
            "cluster.compute.delays=a.csv: would do nothing: it drives the virtual clock; allowed: with cluster=simul",
        ),
        *(
            (
                {"cluster__compute__delays": "a.csv", f"cluster__{section}__{key}": value},
                f"cluster.{section}.{key}={shown}: would do nothing; allowed: its default beside",
            )
            for section, key, value, shown in (
                ("compute", "seconds", 2.0, "2"),
                ("compute", "jitter", 0.2, "0.2"),
                ("compute", "speeds", [1.0, 2.0], "[1,2]"),
                ("stragglers", "probability", 0.1, "0.1"),
            )
        ),
        ({"cluster__kind": "replay"}, "cluster.trace=null: a replay needs a trace"),
        ({"cluster__interface": "a"}, "cluster.interface=a: would do nothing; allowed: with cluster=processes only"),
        ({"cluster__trace": "a"}, "cluster.trace=a: would do nothing; allowed: with cluster=replay only"),
        ({"cluster__kind": "replay", "cluster__trace": "a", "cluster__record": True}, "cluster.record=true: a replay"),
        ({"algorithm": None}, "algorithm=null: is not a configuration"),
        (
            {"schedule__power": 2.0},
            "schedule.power=2: schedule.kind=constant has no power; allowed: null, or schedule=poly",
        ),
        ({"schedule__kind": "inverse"}, "schedule.power=null: schedule.kind=inverse needs a value"),
        ({"schedule__kind": "inverse", "schedule__power": -0.1}, "schedule.power=-0.1: is out of range; allowed: num"),
        ({"schedule__kind": "one_cycle"}, "schedule.lr_start=null: schedule.kind=one_cycle needs a value"),
        ({**ONE_CYCLE, "schedule__lr_start": 0.02}, "schedule.lr_start=0.02: is out of range"),
        ({**ONE_CYCLE, "schedule__lr_end": -1.0}, "schedule.lr_end=-1: is out of range"),
        ({**ONE_CYCLE, "schedule__rise": 1.0}, "schedule.rise=1: is out of range"),
        ({**ONE_CYCLE, "schedule__power": 1.0}, "schedule.power=1: schedule.kind=one_cycle has no power"),
        (
            {**ONE_CYCLE, "schedule__milestones": [1.0]},
            "schedule.milestones=[1]: schedule.kind=one_cycle has no milestones",
        ),
        (
            {**ONE_CYCLE, "run__epochs": 5.0, "schedule__warmup_epochs": 5.0},
            "schedule.warmup_epochs=5: leaves nothing of run.epochs=5 for the one_cycle schedule; allowed: numbers",
        ),
        (
            {"schedule__kind": "polynomial", "schedule__lr_end": 0.0, "schedule__power": 0.0},
            "schedule.power=0: is out of range",
        ),
        ({"run__advise": True, "run__estimate": True}, "run.advise=true: cannot be combined with another question"),
        ({"run__profile": True, "run__estimate": True}, "run.profile=true: would do nothing: nothing is trained; all"),
        (
            {"run__advise": True, "run__plot_schedule": "lr.png"},
            "run.plot_schedule=lr.png: cannot be combined with another question",
        ),
    ],
)
def test_keys_that_contradict_each_other(values: dict[str, Any], line: str):
    with pytest.raises(InputError) as caught:
        validation.check(whole(**values))
    assert str(caught.value).startswith(line)


def test_plain_dictionaries_are_checked_alike():
    plain = OmegaConf.to_container(whole())
    assert isinstance(plain, dict)
    validation.check(plain)
    plain["run"]["epochs"] = -1
    with pytest.raises(InputError, match=r"run\.epochs=-1"):
        validation.check(plain)


def test_unknown_keys_are_refused():
    plain = OmegaConf.to_container(whole())
    assert isinstance(plain, dict)
    validation.check({**plain, "names": {"algorithm": "asgd"}})
    with pytest.raises(InputError, match="extra=1: unknown key"):
        validation.check({**plain, "extra": 1})
    plain["cluster"]["network"]["latancy"] = 0.1
    with pytest.raises(InputError, match=r"cluster\.network\.latancy=0\.1: unknown key"):
        validation.check(plain)


HUGE = [
    ("run.epochs", 1e300, "numbers above 0 to 1e+09"),
    ("run.threads", 1_000_000, "integers from 1 to 1024, or null"),
    ("cluster.timeout", 1e300, "numbers above 0 to 1e+06"),
    ("cluster.compute.sigma", 1e300, "0, or numbers from 1e-06 to 100"),
    ("cluster.compute.cv_task", 1e-300, "0, or numbers from 1e-06 to 100"),
    ("cluster.compute.cv_machine", 101.0, "0, or numbers from 1e-06 to 100"),
    ("cluster.network.bandwidth", 1e-320, "numbers from 1e-06, null"),
    ("schedule.lr", 1e300, "numbers above 0 to 1e+30"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), HUGE, ids=[key for key, _, _ in HUGE])
def test_values_that_overflow_somewhere_are_refused(key: str, value: float, allowed: str):
    with pytest.raises(InputError, match=rf"^{key}=\S+: is (out of range|too large); allowed: ") as error:
        validation.check(whole(**{key: value}))
    assert allowed in str(error.value)


NUMBERS = [
    key
    for section in ("run", "cluster", "cluster.compute", "cluster.network", "schedule")
    for key in (f"{section}.{name}" for name in OmegaConf.select(whole(), section))
    if isinstance(OmegaConf.select(whole(), key), int | float) and not isinstance(OmegaConf.select(whole(), key), bool)
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 1e400], ids=str)
def test_no_number_is_nan_infinite_or_negative(value: float):
    assert len(NUMBERS) > 15
    for key in NUMBERS:
        with pytest.raises((InputError, ValidationError)):
            validation.check(whole(**{key: value}))


@pytest.mark.parametrize("target", [None, 5, "", "name", "a..b", "a b.c", ["a.b"], "1a.b", True], ids=str)
def test_class_without_a_dotted_name_is_refused(target: object):
    cfg = whole()
    cfg.model = {"_target_": target}
    with pytest.raises(InputError, match=r"^model._target_=.*: is not a class; allowed: its dotted name, as package"):
        validation.check(cfg)


@pytest.mark.parametrize("key", ["_partial_", "_args_", "_convert_", 1])
def test_keys_that_are_no_arguments_are_refused(key: object):
    cfg = whole()
    cfg.algorithm = {"_target_": "a.b", key: True}
    with pytest.raises(InputError, match=rf"^algorithm.{key}=true: is not an argument; allowed: "):
        validation.check(cfg)
