"""What a run's configuration may hold: schemas of the sections the runner owns, and checks across their keys.

Nothing here imports torch, so help, shell completion and a mistaken command line answer at once. Hydra merges every
configuration into these schemas, which refuse unknown keys and values of the wrong type; `check` refuses values out
of range. The sections `algorithm`, `model` and `dataset` are `_target_` configurations; their constructors check them.

Before a run is executed `runner.cli` adds a section `names` with the options chosen of each group, as
`names.algorithm = "dc_asgd_a"`: `runner.run.execute` writes them to `summary.json`.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from runner import mistakes
from runner.errors import InputError

GROUPS = ("algorithm", "model", "dataset", "cluster", "schedule", "logger")
"""Config groups a run needs one option of."""
DIAGNOSTICS = ("variance_factor",)
"""What `run.diagnostics` may list."""


@dataclass
class RunConfig:
    """How long and on what a run trains, and what it writes when, in effective passes over the training data."""

    name: str = "dcrun"
    epochs: float = 20.0
    batch_size: int = 32
    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
    compile: bool = False
    channels_last: bool = True
    eval_every: float = 1.0
    eval_batch_size: int = 256
    checkpoint_every: float | None = None
    keep_checkpoints: int = 2
    resume: Any = None
    estimate: bool = False
    micro_batch: int | None = None
    target_loss: float | None = None
    diagnostics: list[str] = field(default_factory=list)
    diagnostic_samples: int = 1024


@dataclass
class ComputeConfig:
    """Virtual seconds that a worker needs for the gradient of one full batch."""

    distribution: str = "uniform"
    seconds: float = 1.0
    jitter: float = 0.1
    sigma: float = 0.25
    cv_task: float = 0.5
    cv_machine: float = 0.6
    speeds: list[float] | None = None


@dataclass
class StragglersConfig:
    """With some probability a gradient takes an extra u times its seconds, u uniform in `extra`."""

    probability: float = 0.0
    extra: list[float] = field(default_factory=lambda: [0.0, 10.0])
    workers: list[int] | None = None


@dataclass
class NetworkConfig:
    """Seconds a message needs: latency + bytes / bandwidth; a server handles one message at a time."""

    latency: float = 0.0
    bandwidth: float | None = None
    allreduce: str = "ring"
    server_seconds: float = 0.0


@dataclass
class ClusterConfig:
    """Who computes: virtual workers on a virtual clock, or real processes."""

    kind: str = "simulated"
    workers: int | None = None
    timeout: float = 60.0
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    stragglers: StragglersConfig = field(default_factory=StragglersConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)


@dataclass
class ScheduleConfig:
    """Learning rate as a function of effective passes."""

    kind: str = "constant"
    lr: float = 0.1
    milestones: list[float] = field(default_factory=list)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    warmup_from: str = "lr_over_workers"


@dataclass
class LoggerConfig:
    """Where metrics go besides the run folder."""

    kind: str = "wandb"
    mode: str = "offline"
    project: str = "dcrun"
    group: str | None = None


@dataclass
class Config:
    """A whole run."""

    seed: int = 0
    algorithm: Any = None
    model: Any = None
    dataset: Any = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    run: RunConfig = field(default_factory=RunConfig)


def register() -> None:
    """Makes the schemas known to Hydra as `schema`, which `conf/config.yaml` starts from."""
    ConfigStore.instance().store(name="schema", node=Config, provider="dcrun")


def default_config() -> DictConfig:
    """Returns the schemas' own defaults, for tests and tools that build a run without Hydra."""
    return OmegaConf.structured(Config)


def check(cfg: DictConfig | Mapping[Any, Any]) -> None:
    """Refuses values out of range and keys that contradict each other.

    Args:
        cfg: a composed configuration, or the same as plain dictionaries.

    Raises:
        InputError: naming the key as the user types it, the value, and what is allowed.
    """
    plain = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    assert isinstance(plain, dict)
    _refuse_unknown(plain, OmegaConf.structured(Config))
    for group in ("algorithm", "model", "dataset"):
        if not isinstance(plain[group], Mapping) or "_target_" not in plain[group]:
            raise InputError.of(
                group, plain[group], "is no configuration", f"an option of the group, as {group}=<option>"
            )
    if plain["seed"] < 0:
        raise InputError.of("seed", plain["seed"], "is negative", "integers from 0")
    _check_run(plain["run"])
    _check_cluster(plain["cluster"])
    _check_schedule(plain["schedule"])
    _one_of("logger.kind", plain["logger"]["kind"], ("none", "wandb"))
    _one_of("logger.mode", plain["logger"]["mode"], ("offline", "online", "disabled"))


def _refuse_unknown(given: Mapping[Any, Any], known: DictConfig, prefix: str = "") -> None:
    """Finds what `+key=value` appended: a schema alone cannot refuse it."""
    for key, value in given.items():
        if key not in known and prefix + key != "names":
            raise mistakes.unknown_key(prefix + key, value, mistakes.flat_keys(known, prefix))
        if isinstance(value, Mapping) and isinstance(known.get(key), DictConfig):
            _refuse_unknown(value, known[key], f"{prefix}{key}.")


def _check_run(run: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"\w[\w.+-]*(/\w[\w.+-]*)*", run["name"]):
        raise InputError.of(
            "run.name", run["name"], "cannot name a folder", "letters, digits and _ . + - (and / between)"
        )
    for key in ("batch_size", "eval_batch_size", "keep_checkpoints"):
        _at_least_one(f"run.{key}", run[key])
    for key in ("epochs", "eval_every"):
        _positive(f"run.{key}", run[key])
    if run["checkpoint_every"] is not None:
        _positive("run.checkpoint_every", run["checkpoint_every"])
    if run["threads"] is not None:
        _at_least_one("run.threads", run["threads"])
    if run["micro_batch"] is not None and not 1 <= run["micro_batch"] <= run["batch_size"]:
        allowed = f"integers from 1 to run.batch_size={run['batch_size']}, or null"
        raise InputError.of("run.micro_batch", run["micro_batch"], "is no part of a batch", allowed)
    if run["target_loss"] is not None:
        _positive("run.target_loss", run["target_loss"], also="null")
    for name in run["diagnostics"]:
        _one_of("run.diagnostics", name, DIAGNOSTICS)
    _at_least_one("run.diagnostic_samples", run["diagnostic_samples"])
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", run["device"]):
        raise InputError.of("run.device", run["device"], "is no device", "auto, cpu, cuda, cuda:<number>")
    _one_of("run.precision", run["precision"], ("fp32", "tf32", "bf16"))
    if not (run["resume"] is None or isinstance(run["resume"], (bool, str))):
        raise InputError.of("run.resume", run["resume"], "is no run folder", "a run folder, true (in a sweep), null")


def _check_cluster(cluster: Mapping[str, Any]) -> None:
    _one_of("cluster.kind", cluster["kind"], ("simulated", "processes"))
    workers = cluster["workers"]
    if workers is not None:
        _at_least_one("cluster.workers", workers)
    _positive("cluster.timeout", cluster["timeout"])
    if cluster["kind"] == "processes":
        _refuse_simulation(cluster)
    compute, stragglers, network = cluster["compute"], cluster["stragglers"], cluster["network"]
    _one_of("cluster.compute.distribution", compute["distribution"], ("constant", "uniform", "lognormal", "gamma"))
    _positive("cluster.compute.seconds", compute["seconds"])
    _within("cluster.compute.jitter", compute["jitter"], 0, 1, open_above=True)
    for key in ("sigma", "cv_task", "cv_machine"):
        _not_negative(f"cluster.compute.{key}", compute[key])
    if compute["speeds"] is not None:
        for speed in compute["speeds"]:
            if not (math.isfinite(speed) and speed > 0):
                raise InputError.of(
                    "cluster.compute.speeds", compute["speeds"], "is no list of speeds", "numbers above 0"
                )
        if workers is not None and len(compute["speeds"]) != workers:
            raise InputError.of(
                "cluster.compute.speeds",
                compute["speeds"],
                f"has {len(compute['speeds'])} entries",
                f"one per worker (cluster.workers={workers})",
            )
    _within("cluster.stragglers.probability", stragglers["probability"], 0, 1)
    extra = stragglers["extra"]
    if len(extra) != 2 or not 0 <= extra[0] <= extra[1] < math.inf:
        raise InputError.of("cluster.stragglers.extra", extra, "is no range", "[low,high] with 0 <= low <= high")
    for worker in stragglers["workers"] or ():
        if worker < 0 or (workers is not None and worker >= workers):
            allowed = f"numbers from 0 to {workers - 1}" if workers is not None else "numbers from 0"
            raise InputError.of("cluster.stragglers.workers", stragglers["workers"], f"{worker} is no worker", allowed)
    _not_negative("cluster.network.latency", network["latency"])
    _not_negative("cluster.network.server_seconds", network["server_seconds"])
    if network["bandwidth"] is not None:
        _positive("cluster.network.bandwidth", network["bandwidth"], also="null (unlimited)")
    _one_of("cluster.network.allreduce", network["allreduce"], ("ring", "linear"))


def _refuse_simulation(cluster: Mapping[str, Any]) -> None:
    """Real processes take the time they take: a simulated delay given to them would do nothing."""
    defaults = OmegaConf.to_container(OmegaConf.structured(ClusterConfig))
    assert isinstance(defaults, dict)
    for section in ("compute", "stragglers", "network"):
        for key, default in defaults[section].items():
            if cluster[section][key] != default:
                raise InputError.of(
                    f"cluster.{section}.{key}",
                    cluster[section][key],
                    "real processes take the time they take",
                    "with cluster=simulated only",
                )


def _check_schedule(schedule: Mapping[str, Any]) -> None:
    _one_of("schedule.kind", schedule["kind"], ("constant", "multistep"))
    _positive("schedule.lr", schedule["lr"])
    _positive("schedule.gamma", schedule["gamma"])
    _not_negative("schedule.warmup_epochs", schedule["warmup_epochs"])
    _one_of("schedule.warmup_from", schedule["warmup_from"], ("lr_over_workers", "zero"))
    milestones = schedule["milestones"]
    if milestones and schedule["kind"] == "constant":
        raise InputError.of("schedule.milestones", milestones, "a constant schedule has none", "schedule=multistep")
    rising = all(a < b for a, b in itertools.pairwise(milestones))
    if not rising or any(not 0 < milestone < math.inf for milestone in milestones):
        raise InputError.of("schedule.milestones", milestones, "are no milestones", "rising numbers above 0")


def _one_of(key: str, value: object, allowed: Iterable[str]) -> None:
    if value not in (allowed := tuple(allowed)):
        raise InputError.of(key, value, "is no such choice", ", ".join(allowed))


def _at_least_one(key: str, value: int) -> None:
    if value < 1:
        raise InputError.of(key, value, "is too small", "integers from 1")


def _positive(key: str, value: float, also: str = "") -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError.of(key, value, "is out of range", "numbers above 0" + (f", {also}" if also else ""))


def _not_negative(key: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError.of(key, value, "is out of range", "numbers from 0")


def _within(key: str, value: float, low: float, high: float, open_above: bool = False) -> None:
    if not (low <= value < high if open_above else low <= value <= high):
        raise InputError.of(
            key, value, "is out of range", f"numbers from {low} to {'below ' if open_above else ''}{high}"
        )
