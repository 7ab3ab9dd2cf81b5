"""What of a configuration cannot go together, said before anything is trained or written.

What one section rules out by itself is checked in `runner.config.schema`, without torch; here is what the method, the
device, the data or the network rule out.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig

from algorithms.base import Stateful
from runner.config.errors import InputError
from runner.config.schema import DIAGNOSTICS
from runner.gradients.diagnostics import DISAGREEMENT, SUFFICIENT_DIRECTION
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import blocks_that_share
from runner.loop.drift import OF_UPDATES


def check_algorithm(cfg: DictConfig, algorithm: type[Stateful], workers: int) -> None:
    """Refuse what a kind of algorithm cannot do; a run on shared memory is put on the CPU if `run.device` is auto.

    Args:
        cfg: the composed configuration.
        algorithm: the method's class.
        workers: number of workers.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    name, diagnostics = cfg.names.algorithm, cfg.run.diagnostics
    # Only if it was asked for: by default such a method records nothing.
    if cfg.cluster.record and not algorithm.has_server:
        what = f"algorithm={name} has no parameter server, and a trace holds the messages of one"
        raise InputError.of("cluster.record", True, what, "false, or null")
    if DISAGREEMENT in diagnostics and (algorithm.replicated or workers == 1):
        what = f"with algorithm={name} and {workers} worker(s) there is one vector of weights"
        others = [name for name in DIAGNOSTICS if name != DISAGREEMENT]
        raise InputError.of("run.diagnostics", DISAGREEMENT, what, ", ".join(others))
    if (wanted := next((one for one in diagnostics if one in OF_UPDATES), None)) and not algorithm.has_server:
        what = f"algorithm={name} has no parameter server, whose updates it is about"
        raise InputError.of("run.diagnostics", wanted, what, "with methods that have one")
    if SUFFICIENT_DIRECTION in diagnostics and not algorithm.cuts_network:
        what = f"algorithm={name} does not cut the network into modules"
        raise InputError.of("run.diagnostics", SUFFICIENT_DIRECTION, what, "with algorithms that do")
    if algorithm.shares_memory and cfg.cluster.kind == "processes":
        if cfg.run.device.startswith("cuda"):
            what = f"algorithm={name} shares the memory of processes, and a GPU's memory cannot be shared in that way"
            raise InputError.of("run.device", cfg.run.device, what, "cpu, auto")
        # Also on a machine with a GPU, where auto would take it.
        cfg.run.device = "cpu"
    if algorithm.cuts_network:
        _check_modules(cfg)


def _check_modules(cfg: DictConfig) -> None:
    """Refuse what a network in modules cannot do."""
    name, run = cfg.names.algorithm, cfg.run
    what = f"algorithm={name} cuts the network into modules"
    if cfg.cluster.kind == "processes":
        _check_modules_on_processes(cfg)
    # A stage computes its blocks one by one, outside the oracle's autocast, compilation and pieces.
    if run.precision == "bf16":
        raise InputError.of("run.precision", "bf16", what, "fp32, tf32")
    if run.compile:
        raise InputError.of("run.compile", True, what, "false")
    if run.micro_batch is not None:
        raise InputError.of("run.micro_batch", run.micro_batch, what, "null")


def _check_modules_on_processes(cfg: DictConfig) -> None:
    """Refuse what modules on processes cannot do."""
    name = cfg.names.algorithm
    if SUFFICIENT_DIRECTION in cfg.run.diagnostics:
        what = f"no process has the weights of all modules of algorithm={name} in every iteration"
        raise InputError.of("run.diagnostics", SUFFICIENT_DIRECTION, what, "with cluster=simulated, or others")
    network, what = (
        cfg.cluster.network,
        f"the modules of algorithm={name} communicate as fast as the real network allows",
    )
    if network.latency:
        raise InputError.of("cluster.network.latency", network.latency, what, "0, or cluster=simulated")
    if network.bandwidth is not None:
        raise InputError.of("cluster.network.bandwidth", network.bandwidth, what, "null, or cluster=simulated")


def check_device(cfg: DictConfig, algorithm: type[Stateful], device: torch.device) -> None:
    """Refuse a compilation that has nothing to compile, or nothing to do it with.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    if not cfg.run.compile or device.type != "cpu":
        return
    if algorithm.shares_memory:
        what = f"fuses a server's update, and algorithm={cfg.names.algorithm} has no server"
        raise InputError.of("run.compile", True, what, "false, or on a GPU, where the network is compiled")
    # PyTorch would look for it after the run has begun.
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise InputError.of("run.compile", True, f"needs a C++ compiler, but there is no {compiler}", "false")


def check_size(cfg: DictConfig, algorithm: type[Stateful], workers: int, samples: int) -> None:
    """Refuse batches that the training set is too small for.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    # Modules of one network work on the same batch; other workers have one each, whether they step together or not.
    # Where the clock goes alone, workers of a server that find no batch in an epoch take one of the next.
    apart = algorithm.cuts_network or (cfg.run.timing_only and not algorithm.steps_together)
    together = 1 if apart else workers
    size = cfg.run.batch_size
    # An epoch needs one whole update: else some workers would have no samples in any step.
    if size * together <= samples:
        return
    what = f"{together} workers would need {size * together} samples at a time, but the training set has {samples}"
    # No batch size could help, so the message is about the workers.
    if together > samples:
        raise InputError.of("cluster.workers", workers, what, f"1 to {samples // size or samples}")
    raise InputError.of("run.batch_size", size, what, f"1 to {samples // together}")


def check_targets(cfg: DictConfig, dataset: Any) -> None:
    """Refuse a network that guesses classes where the data have numbers to regress on, or tokens where it takes none.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    # Asked of the class: to build the network it would need a number of classes.
    model = get_object(cfg.model._target_)
    takes, has = getattr(model, "takes_tokens", False), getattr(dataset, "tokens", False)
    if has and not takes:
        what = f"takes no token numbers, which the samples of dataset={cfg.names.dataset} are"
        raise InputError.of("model", cfg.names.model, what, "gpt, or other datasets")
    if takes and not has:
        what = f"takes token numbers, which the samples of dataset={cfg.names.dataset} are not"
        raise InputError.of("model", cfg.names.model, what, "with dataset=text")
    if dataset.classes == 0 and not getattr(model, "takes_numbers", False):
        what = "guesses classes, but the targets of this dataset are numbers"
        raise InputError.of("model", cfg.names.model, what, "ridge, or dataset.targets=classes")


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
    # Every rank cuts its own targets out of the split, and only one that is in memory has them all at hand.
    if method.cuts_network and oracle.streams:
        what = f"algorithm={name} needs the samples in memory, but this dataset decodes them as they are used"
        raise InputError.of("dataset", cfg.names.dataset, what, "datasets that are held in memory")
    if method.cuts_network and (shared := blocks_that_share(oracle.replica.module)) is not None:
        # Also where both lie in one module: its piece of the flat weights would have the weight twice.
        what = f"its blocks {shared[0]} and {shared[1]} share a weight, which no module of algorithm={name} could own"
        raise InputError.of(
            "model", cfg.names.model, what, "networks whose blocks share none, as with model.tied=false"
        )
    if method.separable and oracle.replica.statistics.numel():
        what = f"has batch norm, with which a sample's loss depends on its batch: algorithm={name} needs"
        raise InputError.of("model", cfg.names.model, f"{what} losses of single samples", "mlp, cnn5, resnet8_nobn ...")
    if getattr(training, "augment", None) is not None and method.needs != "gradients":
        what = f"algorithm={name} has a dual variable for each sample, so a sample must not change"
        raise InputError.of("dataset.augment", True, what, "false")


def check_compute(cfg: DictConfig, method: Stateful, workers: int, oracle: NetworkOracle) -> None:
    """Refuse a number of compute processes that a run cannot have.

    Raises:
        InputError: naming the key, its value and what is allowed.
    """
    asked = cfg.run.compute_processes
    if asked in (1, "auto"):
        return
    if (obstacle := compute_obstacle(cfg, method, oracle)) is not None:
        raise InputError.of("run.compute_processes", asked, obstacle, "1, auto")
    if asked > workers:
        what = f"each worker is at one gradient at a time, and cluster.workers={workers}"
        raise InputError.of("run.compute_processes", asked, what, f"auto, 1 to {workers}")


def compute_obstacle(cfg: DictConfig, method: Stateful, oracle: NetworkOracle) -> str | None:
    """Return why one process has to compute all of a simulation, None if it need not."""
    if SUFFICIENT_DIRECTION in cfg.run.diagnostics:
        return f"run.diagnostics={SUFFICIENT_DIRECTION} needs the weights of all modules in every iteration"
    # As mps, whose memory no other process sees; of a user's own build of PyTorch. Modules compute on weights that lie
    # in the memory that processes share, which is the host's.
    if oracle.device.type not in (("cpu",) if method.cuts_network else ("cpu", "cuda")):
        return f"on {oracle.device} one process computes"
    if oracle.streams:
        return f"dataset={cfg.names.dataset} decodes samples as they are used, in processes of its own"
    return None
