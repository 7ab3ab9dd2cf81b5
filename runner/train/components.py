"""What a run is made of, as one process has it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor

from algorithms.base import Message, Problem, Stateful
from runner.config.errors import InputError, building
from runner.gradients.diagnostics import LayerLog, spread
from runner.gradients.evaluate import Evaluator
from runner.gradients.objective import Objective
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.gradients.replica import Replica
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.loop.drift import OF_UPDATES
from runner.loop.executor import Executor, Observer
from runner.loop.schedule import Schedule
from runner.loop.train_control import TrainControl
from runner.run_folder.recorder import Recorder
from runner.run_folder.trace import trace_facts


@dataclass
class RunComponents:
    """What a run is made of; see `runner.train.build.build_run`.

    Attributes:
        cfg: the composed configuration.
        workers: number of workers M.
        device: where this process computes.
        dataset: see `data.base.Dataset`.
        oracle: gradients of the network on the training data; its replica holds the initial weights.
        method: a fresh, unstarted instance of the algorithm, of one of the four protocols; which of them it is, only
            the functions of the method's row in `runner.train.executors` may rely on.
        schedule: learning rate.
        batches: what each update uses; M times the batch size for a method whose workers step together.
    """

    cfg: DictConfig
    workers: int
    device: torch.device
    dataset: Any
    oracle: NetworkOracle
    method: Any
    schedule: Schedule
    batches: Batches

    @property
    def parameters(self) -> int:
        """Number n of weights."""
        return self.oracle.replica.weights.numel()

    @property
    def samples(self) -> int:
        """Size of the training set."""
        return len(self.dataset.train)

    def new_method(self) -> Any:
        """Return one more unstarted instance of the algorithm."""
        # From the configuration again, not a copy: an instance that has started holds tensors of its own.
        method = instantiate(self.cfg.algorithm)
        prepare_method(method, self.cfg, self.samples, self.workers, self.oracle.replica)
        return method

    def methods(self) -> list[Any]:
        """Return an unstarted instance for each worker: this one's first."""
        # Instances of their own, since what a worker keeps from step to step is in its instance.
        return [self.method, *(self.new_method() for _ in range(self.workers - 1))]

    @functools.cached_property
    def partition(self) -> Partition:
        """The network cut into a module for each worker.

        Raises:
            InputError: the network is not a chain that can be cut so.
        """
        with building():
            self.method.check_workers(self.workers)
        # Once and on first use: cutting runs the network to measure its modules.
        return Partition(self.oracle, self.workers, self.method.split, self.dataset.shape, self.dataset.classes)

    def train_control(self, **options: Any) -> TrainControl:
        """Return the control of this run; `options` are those arguments that ranks of one run have different."""
        run = self.cfg.run
        return TrainControl(
            samples=self.samples,
            epochs=run.epochs,
            eval_every=run.eval_every,
            divergence_factor=run.divergence_factor,
            checkpoint_every=run.checkpoint_every or run.eval_every,
            schedule=self.schedule,
            **options,
        )

    def observers(self, folder: Path, lines: int) -> list[Observer]:
        """Return what `run.diagnostics` asks for of layers.

        Args:
            folder: the run folder.
            lines: evaluations made before, as a checkpoint knows.
        """
        run = self.cfg.run
        layers = [name for name in run.diagnostics if name not in OF_UPDATES]
        if not layers:
            return []
        # The same samples at every evaluation, so that a curve shows the training and not the sampling.
        ids = spread(self.samples, run.diagnostic_samples)
        return [LayerLog(self.oracle, ids, folder, lines, layers, batch_size=run.eval_batch_size)]

    @property
    def measured_updates(self) -> list[str]:
        """What `run.diagnostics` asks for of a server's updates."""
        return [name for name in self.cfg.run.diagnostics if name in OF_UPDATES]

    @property
    def classifies(self) -> bool:
        """Whether the model guesses classes."""
        return getattr(self.oracle.replica.module, "classifies", True)

    def measure(self, weights: Tensor, executor: Executor) -> dict[str, float]:
        """Return what is known of the objective at flat weights (n,); nothing if the model does not tell its φ_i."""
        # Asked first: states may have to be fetched from other processes.
        if self._objective is None:
            return {}
        states = executor.method_states()
        # None before a first evaluation: a run that lost a rank so early knows the others' states of no moment.
        return self._objective(weights, states) if states else {}

    def measure_at(self, weights: Tensor, states: Sequence[Message] | None) -> dict[str, float]:
        """Return `measure` at weights of another run, whose states of the method may not be known: None."""
        return {} if self._objective is None else self._objective(weights, states)

    @functools.cached_property
    def _objective(self) -> Objective | None:
        module = self.oracle.replica.module
        # By what the model offers, not by its name: a user's model with the same methods is measured as well.
        if not hasattr(module, "losses"):
            return None
        # Kept for the run: what it sums over the training data does not change.
        return Objective(module, self.dataset.train, self.method.weight_decay, self.method.duals)

    def clock(self) -> Clock:
        """Return the clock of the run's cluster."""
        cluster = self.cfg.cluster
        return Clock(cluster.compute, cluster.stragglers, cluster.network, workers=self.workers, seed=self.cfg.seed)

    @property
    def validation(self) -> Any:
        """The validation split, None if there is none."""
        # A data set of the user's own need not know of it.
        return getattr(self.dataset, "validation", None)

    def evaluator(self) -> Evaluator | None:
        """Return the evaluator on the test data, None if there are none."""
        # A data set may have no test samples; rows then have no test columns.
        return self.evaluator_of(self.dataset.test) if len(self.dataset.test) else None

    def validator(self) -> Evaluator | None:
        """Return the evaluator on the validation split, None if there is none."""
        return None if self.validation is None else self.evaluator_of(self.validation)

    def evaluator_of(self, split: Any) -> Evaluator:
        """Return the evaluator on a split."""
        size, perplexity = self.cfg.run.eval_batch_size, getattr(self.dataset, "tokens", False)
        return Evaluator(self.oracle, split, batch_size=size, top5=self.dataset.top5, perplexity=perplexity)

    def recorder(self, folder: Path) -> Recorder | None:
        """Return what writes the run's trace, None if `cluster.record` says no; by default only processes record."""
        cluster = self.cfg.cluster
        # A simulation repeats from its seed, so it needs no trace.
        wanted = cluster.kind == "processes" if cluster.record is None else cluster.record
        return Recorder(folder, self.trace_facts()) if wanted else None

    def trace_facts(self) -> dict[str, Any]:
        """Return what identifies the run for a replay: the first line of its trace. The method has a server."""
        return trace_facts(
            self.cfg,
            self.method,
            workers=self.workers,
            samples=self.samples,
            parameters=self.parameters,
            dataset_fingerprint=self.dataset.fingerprint,
            device=self.device,
        )


def prepare_method(method: Stateful, cfg: DictConfig, samples: int, workers: int, replica: Replica) -> None:
    """Tell an instance of the algorithm what it asks to know before it starts.

    Args:
        method: the new instance.
        cfg: the composed configuration.
        samples: size of the training set.
        workers: number of workers M.
        replica: the network.

    Raises:
        InputError: the model is none that it can train.
        ValueError: the method was told something that does not fit the network or the problem.
    """
    method.prepare(replica.layers)
    method.plan(samples, cfg.run.batch_size)
    bind_problem(method, cfg, samples, workers, replica)


def bind_problem(method: Stateful, cfg: DictConfig, samples: int, workers: int, replica: Replica) -> None:
    """Describe the problem to a method that needs more than gradients; the arguments are those of `prepare_method`.

    Raises:
        InputError: the model is none that it can train.
        ValueError: it cannot solve such a problem.
    """
    if method.needs == "gradients":
        return
    module = replica.module
    if not hasattr(module, "losses") or (method.needs == "dual" and not getattr(module, "dual", False)):
        what, allowed = "needs gradients of single samples", "ridge, logistic, smoothed_hinge, pca_step"
        if method.needs == "dual":
            what, allowed = "needs a convex loss that has a dual", "ridge, logistic, smoothed_hinge"
        raise InputError.of("model", cfg.names.model, f"algorithm={cfg.names.algorithm} {what}", allowed)
    scalar = bool(getattr(module, "scalar", True))
    method.bind_problem(Problem(samples, replica.weights.numel(), workers, cfg.run.batch_size, scalar))
