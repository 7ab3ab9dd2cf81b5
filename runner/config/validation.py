"""Checks a composed configuration: ranges of single keys, and keys that contradict each other.

Each rule is here once: code that is built from a checked section (clock, schedule) trusts it. Nothing here imports
torch, so a mistake is reported before anything is loaded or written.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.config import name_clash, override_errors, questions, timing_only
from runner.config.errors import InputError
from runner.config.schema import DIAGNOSTICS, END_WITH_RUN, SCHEDULES, ClusterConfig, Config

DISTRIBUTIONS = ("constant", "uniform", "lognormal", "gamma")
"""Models of computing times, which `runner.loop.clock` describes."""
# What is beyond these is no setting of anybody's, and overflows somewhere: in a counter, a time, or a float32.
MOST_EPOCHS, MOST_THREADS, MOST_SECONDS, MOST_RATE = 1e9, 1024, 1e6, 1e30
LEAST_SPREAD, MOST_SPREAD, LEAST_BANDWIDTH = 1e-6, 100.0, 1e-6
TARGETED = ("algorithm", "model", "dataset")
"""Sections whose keys are those of a constructor, which checks them."""
ALLREDUCES = ("ring", "linear")
"""Models of an all-reduce's time."""


def check(cfg: DictConfig | Mapping[Any, Any]) -> None:
    """Refuse values out of range and keys that contradict each other.

    Args:
        cfg: a composed configuration, or the same as plain dictionaries.

    Raises:
        InputError: naming the key as the user types it, the value, and what is allowed.
    """
    # Resolved, so that what is checked is what the run will see.
    plain = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    assert isinstance(plain, dict)
    _refuse_unknown(plain, OmegaConf.structured(Config))
    for group in TARGETED:
        check_target(group, plain[group])
    name_clash.check_targets({group: plain[group] for group in TARGETED})
    weights = plain["model"].get("weights")
    if not (weights is None or (isinstance(weights, str) and weights)):
        raise InputError.of("model.weights", weights, "is not a path", "a run folder, a file of weights, null")
    if plain["seed"] < 0:
        raise InputError.of("seed", plain["seed"], "is negative", "integers from 0")
    if plain["seeds"] is not None:
        _at_least_one("seeds", plain["seeds"])
    _check_run(plain["run"])
    _check_cluster(plain["cluster"], plain["run"]["compute_processes"])
    questions.check(plain["run"], weights)
    timing_only.check(plain["run"], plain["cluster"])
    _check_schedule(plain["schedule"], plain["run"]["epochs"])
    _check_logger(plain["logger"])


def check_target(group: str, section: Any) -> None:
    """Refuse a section that Hydra could not make an object of.

    Raises:
        InputError: naming the key.
    """
    if not isinstance(section, Mapping) or "_target_" not in section:
        allowed = f"an option of the group, as {group}=<option>"
        # The schema's own key is all that is left of a section that was taken away.
        section = None if section == {"weights": None} else section
        raise InputError.of(group, section, "is not a configuration", allowed)
    target = section["_target_"]
    if not isinstance(target, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", target):
        raise InputError.of(f"{group}._target_", target, "is not a class", "its dotted name, as package.module.Class")
    for key, value in section.items():
        if not isinstance(key, str) or (key.startswith("_") and key != "_target_"):
            allowed = "_target_ and the arguments of its class"
            raise InputError.of(f"{group}.{key}", value, "is not an argument", allowed)


def _refuse_unknown(given: Mapping[Any, Any], known: DictConfig, prefix: str = "") -> None:
    """Refuse keys that `+key=value` appended: a schema alone cannot refuse them."""
    for key, value in given.items():
        # `names` is added by the command itself, after the composition.
        if key not in known and prefix + key != "names":
            raise override_errors.unknown_key(prefix + key, value, override_errors.flat_keys(known, prefix))
        if isinstance(value, Mapping) and isinstance(known.get(key), DictConfig) and key not in TARGETED:
            _refuse_unknown(value, known[key], f"{prefix}{key}.")


def _check_run(run: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"\w[\w.+-]*(/\w[\w.+-]*)*", run["name"]):
        raise InputError.of(
            "run.name", run["name"], "cannot name a folder", "letters, digits and _ . + - (and / between)"
        )
    for key in ("batch_size", "eval_batch_size", "keep_checkpoints"):
        _at_least_one(f"run.{key}", run[key])
    _positive("run.epochs", run["epochs"], most=MOST_EPOCHS)
    _positive("run.eval_every", run["eval_every"])
    if run["checkpoint_every"] is not None:
        _positive("run.checkpoint_every", run["checkpoint_every"])
        if run["checkpoint_every"] < run["eval_every"]:
            what = f"checkpoints are written at evaluations, and run.eval_every={run['eval_every']:g}"
            allowed = f"{run['eval_every']:g} or more, or null"
            raise InputError.of("run.checkpoint_every", run["checkpoint_every"], what, allowed)
    if run["threads"] is not None:
        _at_least_one("run.threads", run["threads"])
        if run["threads"] > MOST_THREADS:
            # OpenMP ends the process, without a line of ours, where it cannot start as many.
            allowed = f"integers from 1 to {MOST_THREADS}, or null"
            raise InputError.of("run.threads", run["threads"], "is too large", allowed)
    processes = run["compute_processes"]
    if processes != "auto" and (isinstance(processes, bool) or not isinstance(processes, int) or processes < 1):
        allowed = "auto, integers from 1 to the number of workers"
        raise InputError.of("run.compute_processes", processes, "is not a number of processes", allowed)
    if run["micro_batch"] is not None:
        _at_least_one("run.micro_batch", run["micro_batch"])
    if run["target_loss"] is not None:
        _positive("run.target_loss", run["target_loss"], also="null")
    factor = run["divergence_factor"]
    if factor is not None and not (math.isfinite(factor) and factor > 1):
        raise InputError.of("run.divergence_factor", factor, "is out of range", "numbers above 1, null")
    for name in run["diagnostics"]:
        _one_of("run.diagnostics", name, DIAGNOSTICS)
    if len(set(run["diagnostics"])) < len(run["diagnostics"]):
        listed = f"[{','.join(run['diagnostics'])}]"
        raise InputError.of("run.diagnostics", listed, "lists a diagnostic twice", "each of them once")
    _at_least_one("run.diagnostic_samples", run["diagnostic_samples"])
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", run["device"]):
        raise InputError.of("run.device", run["device"], "is not a device", "auto, cpu, cuda, cuda:<number>")
    _one_of("run.precision", run["precision"], ("fp32", "tf32", "bf16"))
    if run["capture"] != "auto" and run["capture"] is not False:
        raise InputError.of("run.capture", run["capture"], "is not one of the choices", "auto, false")
    if run["plot_schedule"] is not None and not re.fullmatch(r".+\.(png|svg|pdf)", run["plot_schedule"]):
        raise InputError.of(
            "run.plot_schedule",
            run["plot_schedule"],
            "is not the name of a picture",
            "a file ending in .png, .svg or .pdf, or null",
        )
    if not (run["resume"] is None or isinstance(run["resume"], (bool, str))):
        raise InputError.of("run.resume", run["resume"], "is not a run folder", "a run folder, true (in a sweep), null")


def _check_cluster(cluster: Mapping[str, Any], processes: Any) -> None:
    kind, workers = cluster["kind"], cluster["workers"]
    _one_of("cluster.kind", kind, ("simulated", "processes", "replay"))
    if workers is not None:
        check_workers(workers)
    _positive("cluster.timeout", cluster["timeout"], most=MOST_SECONDS)
    if cluster["trace"] is None and kind == "replay":
        raise InputError.of("cluster.trace", None, "a replay needs a trace", "a run folder with a trace.jsonl")
    if cluster["trace"] is not None and kind != "replay":
        raise InputError.of("cluster.trace", cluster["trace"], "would do nothing", "with cluster=replay only")
    if processes not in (1, "auto") and kind == "processes":
        allowed = "auto, 1; with cluster=simulated or cluster=replay more"
        raise InputError.of("run.compute_processes", processes, "would do nothing: every worker is a process", allowed)
    if cluster["interface"] is not None and kind != "processes":
        raise InputError.of(
            "cluster.interface", cluster["interface"], "would do nothing", "with cluster=processes only"
        )
    # Before the ranges: a delay that would do nothing is wrong whatever its value is.
    compute = cluster["compute"]
    if compute["delays"] is not None:
        _check_delays(cluster)
    if kind == "replay":
        _refuse_times(cluster)
    if compute["seconds"] is None and kind == "simulated":
        what = "a simulated worker needs a computing time"
        raise InputError.of("cluster.compute.seconds", None, what, "numbers above 0")
    if compute["seconds"] is None and kind == "processes":
        keys = ("distribution", "jitter", "sigma", "cv_task", "cv_machine")
        _refuse_changed(compute, "compute", keys, "with a number of cluster.compute.seconds")
    check_times(compute, cluster["stragglers"], cluster["network"], workers)


def check_workers(workers: int) -> None:
    """Refuse a number of workers that no run can have.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    _at_least_one("cluster.workers", workers)


def check_times(
    compute: Mapping[str, Any], stragglers: Mapping[str, Any], network: Mapping[str, Any], workers: int | None
) -> None:
    """Refuse delays out of range: the sections `compute`, `stragglers` and `network` of `cluster`.

    Args:
        compute: as `ComputeConfig`.
        stragglers: as `StragglersConfig`.
        network: as `NetworkConfig`.
        workers: number of workers, which lists with an entry for a worker must fit; None while it is not known.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    _check_compute(compute)
    _check_stragglers(stragglers)
    # Null stands for the algorithm's own number, which is known only when the algorithm is; `runner.train.workers`
    # checks the lists then.
    if workers is not None:
        check_each({"compute": compute, "stragglers": stragglers}, workers)
    _not_negative("cluster.network.latency", network["latency"])
    _not_negative("cluster.network.server_seconds", network["server_seconds"])
    if network["bandwidth"] is not None:
        _positive("cluster.network.bandwidth", network["bandwidth"], also="null (unlimited)", least=LEAST_BANDWIDTH)
    _one_of("cluster.network.allreduce", network["allreduce"], ALLREDUCES)


def _check_compute(compute: Mapping[str, Any]) -> None:
    _one_of("cluster.compute.distribution", compute["distribution"], DISTRIBUTIONS)
    if compute["seconds"] is not None:
        _positive("cluster.compute.seconds", compute["seconds"])
    _within("cluster.compute.jitter", compute["jitter"], 0, 1, open_above=True)
    for key in ("sigma", "cv_task", "cv_machine"):
        # Beyond these a square or an exponential leaves the range of floating-point numbers.
        if compute[key] != 0 and not LEAST_SPREAD <= compute[key] <= MOST_SPREAD:
            allowed = f"0, or numbers from {LEAST_SPREAD:g} to {MOST_SPREAD:g}"
            raise InputError.of(f"cluster.compute.{key}", compute[key], "is out of range", allowed)
    speeds = compute["speeds"]
    if speeds is not None and not all(math.isfinite(speed) and speed > 0 for speed in speeds):
        raise InputError.of("cluster.compute.speeds", list(speeds), "is not a list of speeds", "numbers above 0")


def _check_stragglers(stragglers: Mapping[str, Any]) -> None:
    _within("cluster.stragglers.probability", stragglers["probability"], 0, 1)
    extra = list(stragglers["extra"])
    if len(extra) != 2 or not 0 <= extra[0] <= extra[1] < math.inf:
        raise InputError.of("cluster.stragglers.extra", extra, "is not a range", "[low,high] with 0 <= low <= high")
    if min(stragglers["workers"] or [0]) < 0:
        raise InputError.of(
            "cluster.stragglers.workers", stragglers["workers"], "has a negative worker", "numbers from 0"
        )


def check_each(cluster: Mapping[str, Any], workers: int) -> None:
    """Check the lists that name single workers, once the number of workers is known.

    Args:
        cluster: the section `cluster`.
        workers: how many workers the run has.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    speeds, slow = cluster["compute"]["speeds"], cluster["stragglers"]["workers"]
    if speeds is not None and len(speeds) != workers:
        what = f"has {len(speeds)} entries"
        raise InputError.of("cluster.compute.speeds", list(speeds), what, f"one per worker (cluster.workers={workers})")
    for worker in slow or ():
        if not 0 <= worker < workers:
            what, allowed = f"there is no worker {worker}", f"numbers from 0 to {workers - 1}"
            raise InputError.of("cluster.stragglers.workers", list(slow), what, allowed)


def _refuse_times(cluster: Mapping[str, Any]) -> None:
    """Refuse delays for a replay: it takes the times of its trace, so they would do nothing."""
    if cluster["record"]:
        raise InputError.of("cluster.record", True, "a replay has a trace already", "false, or null")
    allowed = "with cluster=simulated or cluster=processes; a replay takes its trace's times"
    for section in ("compute", "stragglers", "network"):
        _refuse_changed(cluster[section], section, cluster[section], allowed)


def _check_delays(cluster: Mapping[str, Any]) -> None:
    """Refuse a file of computing times where no clock would read it, and what else would set such times beside it."""
    if cluster["kind"] != "simulated":
        what = "would do nothing: it drives the virtual clock"
        raise InputError.of("cluster.compute.delays", cluster["compute"]["delays"], what, "with cluster=simulated only")
    allowed = "its default beside cluster.compute.delays, whose file says how long every gradient takes"
    for section in ("compute", "stragglers"):
        keys = [key for key in cluster[section] if key != "delays"]
        _refuse_changed(cluster[section], section, keys, allowed)


def _refuse_changed(values: Mapping[str, Any], section: str, keys: Iterable[str], allowed: str) -> None:
    """Refuse delays that differ from their defaults where nothing would use them."""
    defaults = OmegaConf.to_container(OmegaConf.structured(ClusterConfig))
    assert isinstance(defaults, dict)
    for key in keys:
        # A default was not typed by the user, so it may stand here unused; anything else was meant to have an effect.
        if values[key] not in (defaults[section][key], None):
            raise InputError.of(f"cluster.{section}.{key}", values[key], "would do nothing", allowed)


def _check_schedule(schedule: Mapping[str, Any], epochs: float) -> None:
    kind = schedule["kind"]
    _one_of("schedule.kind", kind, tuple(SCHEDULES))
    _positive("schedule.lr", schedule["lr"], most=MOST_RATE)
    _positive("schedule.gamma", schedule["gamma"])
    _not_negative("schedule.warmup_epochs", schedule["warmup_epochs"])
    _one_of("schedule.warmup_from", schedule["warmup_from"], ("lr_over_workers", "zero"))
    if schedule["base_batch"] is not None:
        _at_least_one("schedule.base_batch", schedule["base_batch"])
    milestones = schedule["milestones"]
    if milestones and kind != "multistep":
        raise InputError.of(
            "schedule.milestones", milestones, f"schedule.kind={kind} has no milestones", "schedule=multistep"
        )
    rising = all(a < b for a, b in itertools.pairwise(milestones))
    if not rising or any(not 0 < milestone < math.inf for milestone in milestones):
        raise InputError.of("schedule.milestones", milestones, "cannot be milestones", "rising numbers above 0")
    for key in ("lr_start", "lr_end", "rise", "power"):
        if schedule[key] is not None and key not in SCHEDULES[kind]:
            allowed = " or ".join(f"schedule={other}" for other, keys in SCHEDULES.items() if key in keys)
            raise InputError.of(
                f"schedule.{key}", schedule[key], f"schedule.kind={kind} has no {key}", f"null, or {allowed}"
            )
        if schedule[key] is None and key in SCHEDULES[kind]:
            raise InputError.of(
                f"schedule.{key}", None, f"schedule.kind={kind} needs a value", f"a number; schedule={kind} sets it"
            )
    for key in {"lr_start", "lr_end"} & set(SCHEDULES[kind]):
        _within(f"schedule.{key}", schedule[key], 0, schedule["lr"])
    if "rise" in SCHEDULES[kind]:
        _within("schedule.rise", schedule["rise"], 0, 1, open_above=True)
    if kind == "inverse":
        _not_negative("schedule.power", schedule["power"])
    elif "power" in SCHEDULES[kind]:
        _positive("schedule.power", schedule["power"])
    if kind in END_WITH_RUN and schedule["warmup_epochs"] >= epochs:
        raise InputError.of(
            "schedule.warmup_epochs",
            schedule["warmup_epochs"],
            f"leaves nothing of run.epochs={epochs:g} for the {kind} schedule",
            f"numbers from 0 to below {epochs:g}",
        )


def _check_logger(logger: Mapping[str, Any]) -> None:
    _one_of("logger.kind", logger["kind"], ("none", "wandb"))
    _one_of("logger.mode", logger["mode"], ("offline", "online", "disabled"))
    wandb = logger["kind"] == "wandb"
    if logger["mode"] != "offline" and not wandb:
        what = "is of Weights & Biases, and nothing is logged there"
        raise InputError.of("logger.mode", logger["mode"], what, "offline, or logger=wandb")
    if logger["project"] != "dcrun" and not wandb and not logger["mlflow"]:
        what = "is of Weights & Biases and MLflow, and nothing is logged there"
        raise InputError.of("logger.project", logger["project"], what, "dcrun, or logger=wandb or mlflow")
    if logger["tracking_uri"] is not None and not logger["mlflow"]:
        what = "is MLflow's, and nothing is logged there"
        raise InputError.of("logger.tracking_uri", logger["tracking_uri"], what, "null, or logger=mlflow")


def _one_of(key: str, value: object, allowed: Iterable[str]) -> None:
    if value not in (allowed := tuple(allowed)):
        raise InputError.of(key, value, "is not one of the choices", ", ".join(allowed))


def _at_least_one(key: str, value: int) -> None:
    if value < 1:
        raise InputError.of(key, value, "is too small", "integers from 1")


def _positive(key: str, value: float, also: str = "", least: float = 0, most: float = math.inf) -> None:
    if not (math.isfinite(value) and value > 0 and least <= value <= most):
        allowed = f"numbers from {least:g}" if least else "numbers above 0"
        allowed += f" to {most:g}" if most < math.inf else ""
        raise InputError.of(key, value, "is out of range", allowed + (f", {also}" if also else ""))


def _not_negative(key: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError.of(key, value, "is out of range", "numbers from 0")


def _within(key: str, value: float, low: float, high: float, open_above: bool = False) -> None:
    if not (low <= value < high if open_above else low <= value <= high):
        raise InputError.of(
            key, value, "is out of range", f"numbers from {low} to {'below ' if open_above else ''}{high}"
        )
