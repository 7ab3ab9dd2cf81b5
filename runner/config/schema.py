"""Types and defaults of a run's configuration, for the sections that the runner owns.

Nothing here imports torch, so help, shell completion and a mistaken command line answer at once. Hydra merges every
configuration into these schemas, which refuse unknown keys and values of the wrong type; `runner.config.validation`
refuses values out of range. The sections `algorithm`, `model` and `dataset` are `_target_` configurations, whose
constructors check their own keys.

Before a run starts, `runner.cli.main` adds a section `names` with the chosen option of each group, as
`names.model = "resnet20"`. `runner.train.dispatch.dispatch` writes them to `summary.json`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict

GROUPS = ("algorithm", "model", "dataset", "cluster", "schedule", "logger")
"""Config groups; a run needs one option of each."""
OWN = "own"
"""Option of `model` and `dataset` for code that has no option of its own."""
SCHEDULES = {
    "constant": (),
    "multistep": (),
    "one_cycle": ("lr_start", "lr_end", "rise"),
    "polynomial": ("lr_end", "power"),
    "inverse": ("power",),
}
"""Kinds of schedules, with the keys that a kind needs and others lack."""
END_WITH_RUN = ("one_cycle", "polynomial")
"""Kinds that span the whole run after the warm-up."""
GPU_SLOT = "DCRUN_GPU_SLOT"
"""Environment variable that a sweep's launcher sets to the number of a running job, to spread jobs over GPUs."""
DATA_PLACE = ("root", "download", "url", "workers", "cache")
"""Keys of a dataset that say where it lies and how it is read, not what it holds."""
DIAGNOSTICS = ("variance_factor", "largest_rate", "disagreement", "sufficient_direction", "gap", "update_cosine")
"""What `run.diagnostics` may list."""


@dataclass
class RunConfig:
    """How long and on what device a run trains, and when it writes what (in effective passes over the training set)."""

    name: str = "dcrun"
    epochs: float = 10.0
    batch_size: int = 32
    device: str = "auto"
    precision: str = "fp32"
    threads: int | None = None
    # Any: integer or "auto".
    compute_processes: Any = "auto"
    compile: bool = False
    # Any: "auto" or false. OmegaConf has no type for that; `validation` refuses other values.
    capture: Any = "auto"
    deterministic: bool = False
    channels_last: bool = True
    eval_every: float = 1.0
    eval_batch_size: int = 256
    checkpoint_every: float | None = None
    keep_checkpoints: int = 2
    # Any: text (a folder), true or null.
    resume: Any = None
    estimate: bool = False
    advise: bool = False
    evaluate_only: bool = False
    profile: bool = False
    plot_schedule: str | None = None
    timing_only: bool = False
    micro_batch: int | None = None
    target_loss: float | None = None
    divergence_factor: float | None = 1000.0
    diagnostics: list[str] = field(default_factory=list)
    diagnostic_samples: int = 1024


@dataclass
class ComputeConfig:
    """Seconds of a worker for the gradient of one full batch, virtual or, by sleeping, real."""

    distribution: str = "uniform"
    # Null stands for the real time; the schema has a number, since a simulation cannot go without one.
    seconds: float | None = 1.0
    jitter: float = 0.1
    sigma: float = 0.25
    cv_task: float = 0.5
    cv_machine: float = 0.6
    speeds: list[float] | None = None
    delays: str | None = None


@dataclass
class StragglersConfig:
    """With some probability a gradient takes u times its own seconds in addition, u uniform in `extra`."""

    probability: float = 0.0
    extra: list[float] = field(default_factory=lambda: [0.0, 10.0])
    workers: list[int] | None = None


@dataclass
class NetworkConfig:
    """Seconds of a message: latency + bytes / bandwidth; a server handles one message at a time."""

    latency: float = 0.0
    bandwidth: float | None = None
    allreduce: str = "ring"
    server_seconds: float = 0.0


@dataclass
class ClusterConfig:
    """Who computes: simulated workers on a virtual or a recorded clock, or real processes."""

    kind: str = "simulated"
    workers: int | None = None
    timeout: float = 60.0
    interface: str | None = None
    # Null: processes record, a simulation does not need to.
    record: bool | None = None
    trace: str | None = None
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
    lr_start: float | None = None
    lr_end: float | None = None
    rise: float | None = None
    power: float | None = None
    base_batch: int | None = None
    warmup_epochs: float = 0.0
    warmup_from: str = "lr_over_workers"


@dataclass
class LoggerConfig:
    """Where metrics go besides the run folder.

    The options of the group add to each other, as `logger=[csv,wandb]`: each has keys of its own, which the others
    leave alone.
    """

    # none, or wandb: run folders say so from before there were other loggers.
    kind: str = "none"
    mode: str = "offline"
    project: str = "dcrun"
    group: str | None = None
    csv: bool = False
    tensorboard: bool = False
    mlflow: bool = False
    tracking_uri: str | None = None


@dataclass
class Config:
    """The configuration of a run."""

    seed: int = 0
    scale: str | None = None
    seeds: int | None = None
    # Any: their keys are those of the constructor that the option names, which checks them.
    algorithm: Any = None
    # Weights are not the constructor's: any model can start from given ones.
    model: Any = field(default_factory=lambda: {"weights": None})
    dataset: Any = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    run: RunConfig = field(default_factory=RunConfig)


def register() -> None:
    """Make the schemas known to Hydra as `schema`, which `conf/config.yaml` starts from."""
    # As the first of the defaults: whatever is merged after it is held against these types.
    ConfigStore.instance().store(name="schema", node=Config, provider="dcrun")


def option_names(cfg: DictConfig, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the option chosen of each group, for messages and the summary; of `own` the code that it names.

    Args:
        cfg: the composed configuration.
        choices: the options by group.
    """
    names = {group: choices.get(group) for group in GROUPS}
    if names["model"] == OWN:
        names["model"] = cfg.model._target_
    if names["dataset"] == OWN:
        names["dataset"] = OmegaConf.select(cfg, "dataset.train._target_") or OWN
    return names


def without_hydra(cfg: DictConfig) -> DictConfig:
    """Return a copy of a composed configuration without Hydra's own part, which is what a run sees."""
    # A copy: the caller still needs `cfg.hydra`, for the folder and the options chosen.
    job = copy.deepcopy(cfg)
    # Hydra locks a composed configuration against keys coming and going.
    with open_dict(job):
        job.pop("hydra", None)
    return job
