"""What a run needs to know of pipeline methods: what it cannot do with them, and how to cut its network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from algorithms.pipeline import Pipeline
from runner.activity import Activity
from runner.directions import Directions
from runner.errors import InputError
from runner.simulated_pipeline import SimulatedPipeline
from runner.stage import Cut

if TYPE_CHECKING:
    from runner.build import Parts
    from runner.course import Course

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
            raise InputError.of("run.diagnostics", SIGMA, what, "with algorithms that do: bp, ddg, dni, fr")
        return
    what = f"algorithm={name} cuts the network into modules"
    if cfg.cluster.kind == "processes":
        raise InputError.of("cluster", "processes", f"{what}, which run in simulation only", "simulated")
    if run.precision == "bf16":
        raise InputError.of("run.precision", "bf16", what, "fp32, tf32")
    if run.compile:
        raise InputError.of("run.compile", True, what, "false")
    if run.micro_batch is not None:
        raise InputError.of("run.micro_batch", run.micro_batch, what, "null")


def cut(parts: Parts) -> Cut:
    """Return the run's network in modules."""
    method = parts.method
    assert isinstance(method, Pipeline)
    return Cut(parts.oracle, parts.workers, method.split, parts.dataset.shape, parts.dataset.classes)


def simulated(parts: Parts, course: Course) -> SimulatedPipeline:
    """Return the executor that simulates the modules."""
    method = parts.method
    assert isinstance(method, Pipeline)
    watched = SIGMA in parts.cfg.run.diagnostics
    return SimulatedPipeline(
        [method, *(parts.another_method() for _ in range(parts.workers - 1))],
        cut(parts),
        workers=parts.workers,
        oracle=parts.oracle,
        batches=parts.batches,
        clock=parts.clock(),
        course=course,
        activity=Activity(parts.workers),
        directions=Directions(parts.workers, parts.device) if watched else None,
    )
