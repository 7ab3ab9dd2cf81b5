"""What of a configuration cannot go together, said before anything is trained or written."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import torch
from omegaconf import DictConfig

from algorithms.base import ParameterServer, Stateful
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.config.errors import InputError
from runner.config.schema import DIAGNOSTICS
from runner.gradients.oracle import NetworkOracle
from runner.train import pipeline


def check_algorithm(cfg: DictConfig, algorithm: type[Stateful], workers: int) -> None:
    """Refuse what a kind of algorithm cannot do; a run on shared memory is put on the CPU where it has the choice.

    Args:
        cfg: the composed configuration.
        algorithm: the method's class.
        workers: number of workers.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    name = cfg.names.algorithm
    if cfg.cluster.record and not issubclass(algorithm, ParameterServer):
        what = f"algorithm={name} has no parameter server, whose messages a trace tells of"
        raise InputError.of("cluster.record", True, what, "false, or null")
    if "disagreement" in cfg.run.diagnostics and (getattr(algorithm, "replicated", True) or workers == 1):
        what = f"with algorithm={name} and {workers} worker(s) there is one vector of weights"
        others = [name for name in DIAGNOSTICS if name != "disagreement"]
        raise InputError.of("run.diagnostics", "disagreement", what, ", ".join(others))
    if issubclass(algorithm, SharedMemory) and cfg.cluster.kind == "processes":
        if cfg.run.device.startswith("cuda"):
            what = f"algorithm={name} shares the memory of processes, which a GPU has not"
            raise InputError.of("run.device", cfg.run.device, what, "cpu, auto")
        cfg.run.device = "cpu"
    pipeline.check(cfg, algorithm)


def check_device(cfg: DictConfig, algorithm: type[Stateful], device: torch.device) -> None:
    """Refuse a compilation that has nothing to compile, or nothing to do it with.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    if not cfg.run.compile or device.type != "cpu":
        return
    if issubclass(algorithm, SharedMemory):
        what = f"fuses a server's update, and algorithm={cfg.names.algorithm} has no server"
        raise InputError.of("run.compile", True, what, "false, or on a GPU, where the network is compiled")
    # PyTorch would look for it after the run has begun.
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise InputError.of("run.compile", True, f"needs a C++ compiler, and there is no {compiler}", "false")


def check_size(cfg: DictConfig, algorithm: type[Stateful], workers: int, samples: int) -> None:
    """Refuse batches that the training set is too small for.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    # The modules of a pipeline share a batch.
    together = 1 if issubclass(algorithm, Pipeline) else workers
    size = cfg.run.batch_size
    if size * together <= samples:
        return
    what = f"{together} workers would need {size * together} samples at a time, the training set has {samples}"
    if together > samples:
        raise InputError.of("cluster.workers", workers, what, f"1 to {samples // size or samples}")
    raise InputError.of("run.batch_size", size, what, f"1 to {samples // together}")


def check_problem(cfg: DictConfig, method: Stateful, oracle: NetworkOracle, training: Any) -> None:
    """Refuse networks and samples that a method cannot be trained on.

    Args:
        cfg: the composed configuration.
        method: the method.
        oracle: of the network.
        training: the training split.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    name = cfg.names.algorithm
    if isinstance(method, Pipeline) and oracle.streams:
        what = f"algorithm={name} needs the samples in memory, and this dataset decodes as it goes"
        raise InputError.of("dataset", cfg.names.dataset, what, "datasets that are held in memory")
    if method.separable and oracle.replica.statistics.numel():
        what = f"has batch norm, with which a sample's loss depends on its batch: algorithm={name} needs"
        raise InputError.of("model", cfg.names.model, f"{what} losses of single samples", "mlp, cnn5, resnet8_nobn ...")
    if getattr(training, "augment", None) is not None and method.needs != "gradients":
        what = f"algorithm={name} has a dual variable for each sample, which must stay as it is"
        raise InputError.of("dataset.augment", True, what, "false")
