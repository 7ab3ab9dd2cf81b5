"""From a composed configuration to the parts of a run: data, network, method, schedule.

Wrong input shows here, as `InputError`, before anything is trained or written.
"""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from algorithms.base import Collective, ParameterServer, Problem, Stateful
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.config.errors import InputError, building
from runner.config.schema import GPU_SLOT
from runner.config.seeds import derive
from runner.config.validation import check_each
from runner.gradients.cuda_graph import CudaGraphs
from runner.gradients.diagnostics import LayerLog, spread
from runner.gradients.evaluate import Evaluator
from runner.gradients.objective import Objective
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica
from runner.gradients.side_stream import CudaSideStream
from runner.loop.barrier import count_pushes
from runner.loop.batches import Batches
from runner.loop.clock import Clock
from runner.loop.executor import Executor, Observer
from runner.loop.schedule import Schedule
from runner.train import compatibility

log = logging.getLogger("dcrun")


@dataclass
class RunComponents:
    """What a run is made of; see `build_run`.

    Attributes:
        cfg: the composed configuration.
        workers: number of workers M.
        device: where this process computes.
        dataset: see `data.base.Dataset`.
        oracle: gradients of the network on the training data; its replica holds the initial weights.
        method: a fresh, unstarted instance of the algorithm.
        schedule: learning rate.
        batches: what each update uses; M times the batch size for a collective method.
    """

    cfg: DictConfig
    workers: int
    device: torch.device
    dataset: Any
    oracle: NetworkOracle
    method: ParameterServer | Collective | SharedMemory | Pipeline
    schedule: Schedule
    batches: Batches

    def new_method(self) -> Any:
        """Return one more unstarted instance of the algorithm."""
        method = instantiate(self.cfg.algorithm)
        method.prepare(self.oracle.replica.layers)
        method.plan(len(self.dataset.train), self.cfg.run.batch_size)
        bind_problem(method, self.cfg, len(self.dataset.train), self.workers, self.oracle.replica)
        return method

    def observers(self, folder: Path, lines: int) -> list[Observer]:
        """Return what `run.diagnostics` asks for.

        Args:
            folder: the run folder.
            lines: evaluations made before, as a checkpoint knows.
        """
        run = self.cfg.run
        if not run.diagnostics:
            return []
        ids = spread(len(self.dataset.train), run.diagnostic_samples)
        return [LayerLog(self.oracle, ids, folder, lines, run.diagnostics, batch_size=run.eval_batch_size)]

    @property
    def classifies(self) -> bool:
        """Whether the model guesses classes."""
        return getattr(self.oracle.replica.module, "classifies", True)

    def measure(self, weights: Tensor, executor: Executor) -> dict[str, float]:
        """Return what is known of the objective at flat weights: nothing, where the model does not tell its φ_i."""
        if self._objective is None:
            return {}
        state = executor.state_dict()
        return self._objective(weights, state["methods"] if "methods" in state else [state["method"]])

    @functools.cached_property
    def _objective(self) -> Objective | None:
        module = self.oracle.replica.module
        if not hasattr(module, "quadratic"):
            return None
        return Objective(module, self.dataset.train, self.method.weight_decay, self.method.duals)

    def clock(self) -> Clock:
        """Return the clock of the run's cluster."""
        cluster = self.cfg.cluster
        return Clock(cluster.compute, cluster.stragglers, cluster.network, workers=self.workers, seed=self.cfg.seed)

    def evaluator(self) -> Evaluator | None:
        """Return the evaluator on the test data, None where there are none."""
        if not len(self.dataset.test):
            return None
        size, top5 = self.cfg.run.eval_batch_size, self.dataset.top5
        return Evaluator(self.oracle, self.dataset.test, batch_size=size, top5=top5)


def workers_of(cfg: DictConfig, algorithm: type[ParameterServer | Collective | SharedMemory | Pipeline]) -> int:
    """Return the number of workers: the user's, else the algorithm's own.

    Raises:
        InputError: more workers than the algorithm can use, or a list that names others than these.
    """
    workers, most = cfg.cluster.workers, algorithm.max_workers
    if workers is None:
        workers = algorithm.default_workers
    elif most is not None and workers > most:
        what = f"algorithm={cfg.names.algorithm} runs on " + ("one worker" if most == 1 else f"at most {most} workers")
        raise InputError.of("cluster.workers", workers, what, "1, or null" if most == 1 else f"1 to {most}, or null")
    check_each(cfg.cluster, workers)
    return workers


def device_of(cfg: DictConfig, rank: int = 0) -> torch.device:
    """Return the device that `run.device` names; `auto` and `cuda` spread ranks over the GPUs there are.

    Where several jobs of a sweep run at a time, the launcher numbers them by `GPU_SLOT`, and they are spread likewise.

    Raises:
        InputError: a GPU is asked for that is not there, or a precision that the device does not have.
    """
    name = cfg.run.device
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name.startswith("cuda") and (not found or (":" in name and int(name.split(":")[1]) >= found)):
        allowed = "cpu, auto" + "".join(f", cuda:{i}" for i in range(found))
        raise InputError.of("run.device", name, f"this machine has {found} usable GPUs", allowed)
    device = torch.device(name if name != "auto" else ("cuda" if found else "cpu"))
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", (int(os.environ.get(GPU_SLOT, 0)) + rank) % found)
    if cfg.run.precision == "tf32" and device.type != "cuda":
        raise InputError.of("run.precision", "tf32", f"needs a GPU, the run is on {device}", "fp32, bf16")
    return device


def set_numerics(cfg: DictConfig) -> None:
    """Set for this process whether kernels may use TF32, and whether all they do must repeat bit for bit."""
    torch.backends.cuda.matmul.allow_tf32 = cfg.run.precision == "tf32"
    # Convolutions have a switch of their own, which is on by default.
    torch.backends.cudnn.allow_tf32 = cfg.run.precision == "tf32"
    if cfg.run.deterministic:
        # cuBLAS reads it when CUDA starts, which is later than here.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(cfg.run.deterministic)
    torch.backends.cudnn.deterministic = cfg.run.deterministic


def build_run(cfg: DictConfig, *, rank: int = 0) -> RunComponents:
    """Build the parts of a run for one process.

    Args:
        cfg: the composed configuration, checked by `runner.config.validation.check`.
        rank: which process this is, to spread processes over GPUs.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    algorithm = get_class(cfg.algorithm._target_)
    workers = workers_of(cfg, algorithm)
    compatibility.check_algorithm(cfg, algorithm, workers)
    set_numerics(cfg)
    device = device_of(cfg, rank)
    compatibility.check_device(cfg, algorithm, device)
    if cfg.run.threads is not None:
        torch.set_num_threads(cfg.run.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with building():
        method = instantiate(cfg.algorithm)
        dataset = instantiate(cfg.dataset)
    n = len(dataset.train)
    compatibility.check_size(cfg, algorithm, workers, n)
    torch.manual_seed(derive(cfg.seed, "weights"))
    with building():
        module = instantiate(cfg.model, shape=tuple(dataset.shape), classes=dataset.classes).to(device)
    dataset.to(device)
    on_gpu = device.type == "cuda"
    oracle = NetworkOracle(
        Replica(module, channels_last=cfg.run.channels_last),
        dataset.train,
        seed=cfg.seed,
        precision=cfg.run.precision,
        # On a CPU the network's operators take most of the time; there only the update is compiled.
        compiled=cfg.run.batch_size if cfg.run.compile and on_gpu else None,
        micro_batch=cfg.run.micro_batch,
        graphs=CudaGraphs(device) if cfg.run.capture == "auto" and on_gpu else None,
        side_stream=CudaSideStream(device) if on_gpu else None,
        piece=min(cfg.run.eval_batch_size, cfg.run.micro_batch or cfg.run.eval_batch_size),
    )
    compatibility.check_problem(cfg, method, oracle, dataset.train)
    with building():
        method.prepare(oracle.replica.layers)
        method.plan(n, cfg.run.batch_size)
        bind_problem(method, cfg, n, workers, oracle.replica)
        if method.per_sample or "variance_factor" in cfg.run.diagnostics:
            oracle.sample_norms  # noqa: B018 (refuses a network with layers that cannot tell them)
    together = workers if isinstance(method, Collective) else 1
    size, epochs = cfg.run.batch_size * together, cfg.run.epochs
    batches = Batches(
        samples=n,
        size=size,
        seed=cfg.seed,
        epochs=epochs,
        total=count_pushes(method, samples=n, size=size, epochs=epochs)
        if isinstance(method, ParameterServer | SharedMemory)
        else None,
        device="cpu" if oracle.streams else device,
        shards=None if method.needs == "gradients" else workers,
    )
    if not len(batches):
        raise InputError.of("run.epochs", cfg.run.epochs, f"is no update of {n} samples", f"{1 / n:.2g} or more")
    schedule = schedule_of(cfg, workers, batches.size)
    bound = method.largest_rate()
    if bound is not None and cfg.schedule.lr >= bound:
        log.warning("schedule.lr=%g: this problem needs a rate below %.3g, or it diverges", cfg.schedule.lr, bound)
    return RunComponents(cfg, workers, device, dataset, oracle, method, schedule, batches)


def bind_problem(method: Stateful, cfg: DictConfig, n: int, workers: int, replica: Replica) -> None:
    """Tell a method that needs more than gradients what the problem is.

    Raises:
        InputError: the model is none that it can train.
        ValueError: it cannot solve such a problem.
    """
    if method.needs == "gradients":
        return
    module = replica.module
    if not hasattr(module, "quadratic") or (method.needs == "dual" and not getattr(module, "dual", False)):
        what = "needs a quadratic loss" if method.needs == "dual" else "needs gradients of single samples"
        allowed = "ridge" if method.needs == "dual" else "ridge, pca_step"
        raise InputError.of("model", cfg.names.model, f"algorithm={cfg.names.algorithm} {what}", allowed)
    scalar = bool(getattr(module, "scalar", True))
    method.bind_problem(Problem(n, replica.weights.numel(), workers, cfg.run.batch_size, scalar))


def schedule_of(cfg: DictConfig, workers: int, batch: int) -> Schedule:
    """Return the learning-rate schedule of a run with `workers` workers and `batch` samples an update."""
    options: Any = OmegaConf.to_container(cfg.schedule)
    return Schedule(workers=workers, epochs=cfg.run.epochs, batch=batch, **options)
