"""What a run takes of a machine, for who starts several of them: threads, workers, memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig

from algorithms.base import Batch
from runner.config.errors import InputError
from runner.config.units import FLOAT_BYTES
from runner.run_folder.machine import peak_memory_bytes, resident_memory_bytes
from runner.train.build import build_run, threads_of
from runner.train.workers import workers_of

log = logging.getLogger("dcrun")

OWN_VECTORS = 6
"""Weight vectors that a simulation holds besides one a worker: what `benchmarks/memory.py` allows."""
OWN_BYTES = 64 * 2**20
"""What any run takes for itself; the bound is ours."""


def needs_of(cfg: DictConfig) -> tuple[int, int]:
    """Return how many workers a run will have, and how many threads each of its processes.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    # A replay takes its workers from its trace, and its threads where nothing else is said.
    if cfg.cluster.kind == "replay":
        return cfg.cluster.workers or 1, cfg.run.threads or 1
    workers = workers_of(cfg, get_class(cfg.algorithm._target_))
    return workers, threads_of(cfg, workers)


def memory_of(configs: Sequence[DictConfig]) -> int | None:
    """Return the bytes that the largest of some runs takes beyond what this process holds; None if none can be built.

    Each is built here, with its data, and computes one gradient. Call it in a process of its own.

    Args:
        configs: the composed configurations.
    """
    before, vectors, built = resident_memory_bytes(), 0, False
    for cfg in configs:
        try:
            components = build_run(cfg)
        except InputError as refused:
            # The run itself will say so, and to the user.
            log.info("%s", refused)
            continue
        built = True
        vectors = max(vectors, (components.workers + OWN_VECTORS) * components.parameters)
        _compute(components)
        del components
    return peak_memory_bytes() - before + FLOAT_BYTES * vectors + OWN_BYTES if built else None


def _compute(components: Any) -> None:
    """Compute one gradient, for the memory of its activations, and forget it."""
    if components.method.needs == "gradients":
        ids = torch.arange(min(components.cfg.run.batch_size, components.samples))
        batch = Batch(number=0, epoch=0, ids=ids, size=len(ids))
        components.oracle.reference_gradient(components.oracle.replica.weights, batch)
