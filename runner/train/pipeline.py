"""What a run needs to know of pipeline methods: what it cannot do with them, and how to cut its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from algorithms.pipeline import Pipeline
from runner.config.errors import InputError
from runner.gradients.directions import Directions
from runner.gradients.partition import Partition
from runner.processes.pipeline import ProcessPipeline
from runner.processes.rendezvous import Rendezvous
from runner.run_folder.timeline import Activity
from runner.simulated.pipeline import SimulatedPipeline

if TYPE_CHECKING:
    from runner.loop.train_control import TrainControl
    from runner.train.build import RunComponents

SIGMA = "sufficient_direction"


def check(cfg: DictConfig, algorithm: type) -> None:
    """Refuse what a network in modules cannot do, and what needs one.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    name, run = cfg.names.algorithm, cfg.run
    if not issubclass(algorithm, Pipeline):
        if SIGMA in run.diagnostics:
            what = f"algorithm={name} does not cut the network into modules"
            raise InputError.of("run.diagnostics", SIGMA, what, "with algorithms that do (topology pipeline)")
        return
    what = f"algorithm={name} cuts the network into modules"
    if cfg.cluster.kind == "processes":
        _check_processes(cfg, name)
    if run.precision == "bf16":
        raise InputError.of("run.precision", "bf16", what, "fp32, tf32")
    if run.compile:
        raise InputError.of("run.compile", True, what, "false")
    if run.micro_batch is not None:
        raise InputError.of("run.micro_batch", run.micro_batch, what, "null")


def _check_processes(cfg: DictConfig, name: str) -> None:
    """Refuse what modules on processes cannot do."""
    if SIGMA in cfg.run.diagnostics:
        what = f"no process has the weights of all modules of algorithm={name} in every iteration"
        raise InputError.of("run.diagnostics", SIGMA, what, "with cluster=simulated, or others")
    network, what = cfg.cluster.network, f"the modules of algorithm={name} talk as fast as the real network lets them"
    if network.latency:
        raise InputError.of("cluster.network.latency", network.latency, what, "0, or cluster=simulated")
    if network.bandwidth is not None:
        raise InputError.of("cluster.network.bandwidth", network.bandwidth, what, "null, or cluster=simulated")


def partition(parts: RunComponents) -> Partition:
    """Return the run's network in modules."""
    method = parts.method
    assert isinstance(method, Pipeline)
    return Partition(parts.oracle, parts.workers, method.split, parts.dataset.shape, parts.dataset.classes)


def simulated(parts: RunComponents, control: TrainControl) -> SimulatedPipeline:
    """Return the executor that simulates the modules."""
    method = parts.method
    assert isinstance(method, Pipeline)
    watched = SIGMA in parts.cfg.run.diagnostics
    return SimulatedPipeline(
        [method, *(parts.new_method() for _ in range(parts.workers - 1))],
        partition(parts),
        workers=parts.workers,
        oracle=parts.oracle,
        batches=parts.batches,
        clock=parts.clock(),
        control=control,
        activity=Activity(parts.workers),
        directions=Directions(parts.workers, parts.device) if watched else None,
    )


def on_process(
    parts: RunComponents, modules: Partition, rendezvous: Rendezvous, control: TrainControl
) -> ProcessPipeline:
    """Return the executor of this rank's module."""
    method = parts.method
    assert isinstance(method, Pipeline)
    return ProcessPipeline(
        method,
        modules,
        rendezvous=rendezvous,
        oracle=parts.oracle,
        batches=parts.batches,
        control=control,
        activity=Activity(parts.workers),
        clock=parts.clock(),
    )
