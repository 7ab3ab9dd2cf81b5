"""From a composed configuration to the components of a run: data, network, method, schedule.

Wrong input shows here, as `InputError`, before anything is trained or written.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from algorithms.base import Stateful
from runner.config import startup
from runner.config.errors import InputError, building
from runner.config.schema import GPU_SLOT
from runner.gradients.cuda_graph import CudaGraphs
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica
from runner.gradients.side_stream import CudaSideStream
from runner.loop.barrier import count_pushes
from runner.loop.batches import Batches
from runner.loop.schedule import Schedule
from runner.train import compatibility, targets
from runner.train.components import RunComponents, prepare_method
from runner.train.datasets import dataset_of
from runner.train.network import build_module
from runner.train.warnings import warnings
from runner.train.workers import update_samples, workers_of

log = logging.getLogger("dcrun")

PYTORCHS_THREADS = torch.get_num_threads()
"""What PyTorch chose for this process: the cores, or what OMP_NUM_THREADS says."""


def device_of(cfg: DictConfig, rank: int = 0) -> torch.device:
    """Return the device that `run.device` names; `auto` and `cuda` spread ranks over the GPUs there are.

    Where several jobs of a sweep run at a time, the launcher numbers them by `GPU_SLOT`, and they are spread likewise.

    Raises:
        InputError: a GPU is asked for that is not there, or a precision that the device does not have.
    """
    # The clock alone computes nothing, and starting a GPU would take longer than the run.
    name = "cpu" if cfg.run.timing_only and cfg.run.device == "auto" else cfg.run.device
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name.startswith("cuda") and (not found or (":" in name and int(name.split(":")[1]) >= found)):
        allowed = "cpu, auto" + "".join(f", cuda:{i}" for i in range(found))
        raise InputError.of("run.device", name, f"this machine has {found} usable GPUs", allowed)
    device = torch.device(name if name != "auto" else ("cuda" if found else "cpu"))
    if device.type == "cuda" and device.index is None:
        # More ranks than GPUs share them; a named GPU, as `cuda:1`, is every rank's.
        device = torch.device("cuda", (int(os.environ.get(GPU_SLOT, 0)) + rank) % found)
    if cfg.run.precision == "tf32" and device.type != "cuda":
        raise InputError.of("run.precision", "tf32", f"needs a GPU, but the run is on {device}", "fp32, bf16")
    return device


def threads_of(cfg: DictConfig, workers: int) -> int:
    """Return how many threads PyTorch's CPU kernels have in each process of a run.

    Several simulated workers have one: the bits depend on the threads, and are to be those of any machine of the same
    kind, whatever its cores. More cores are used by `run.compute_processes`, which scales better and changes no bit.
    """
    if cfg.run.threads is not None:
        return cfg.run.threads
    return PYTORCHS_THREADS if workers == 1 or cfg.cluster.kind == "processes" else 1


def set_numerics(cfg: DictConfig, workers: int) -> None:
    """Set for this process how it computes: threads, TF32, and whether all that kernels do must repeat bit for bit."""
    torch.set_num_threads(threads_of(cfg, workers))
    # Set in any case: fp32 means no TF32 anywhere, and PyTorch may start with the first switch on.
    torch.backends.cuda.matmul.allow_tf32 = cfg.run.precision == "tf32"
    # Convolutions have a switch of their own, which is on by default.
    torch.backends.cudnn.allow_tf32 = cfg.run.precision == "tf32"
    if cfg.run.deterministic:
        # cuBLAS reads it when CUDA starts, which is later than here.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Also to false, as one process may build several runs. But only if it changes something: PyTorch imports its
    # compiler to pass the setting on, which takes a second.
    if torch.are_deterministic_algorithms_enabled() != cfg.run.deterministic:
        torch.use_deterministic_algorithms(cfg.run.deterministic)
    torch.backends.cudnn.deterministic = cfg.run.deterministic


def build_run(cfg: DictConfig, *, rank: int = 0) -> RunComponents:
    """Build what a run is made of, for one process.

    What can be refused without data is refused first: data may take minutes to decode, and nothing is written before
    this returns.

    Args:
        cfg: the composed configuration, checked by `runner.config.validation.check`.
        rank: which process this is, to spread processes over GPUs.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    algorithm = get_class(cfg.algorithm._target_)
    workers = workers_of(cfg, algorithm)
    compatibility.check_algorithm(cfg, algorithm, workers)
    # Before the device is looked at: what must repeat bit for bit is read from the environment when CUDA starts.
    set_numerics(cfg, workers)
    device = device_of(cfg, rank)
    compatibility.check_device(cfg, algorithm, device)
    if device.type == "cuda":
        # Graphs, streams and NCCL take the current GPU, which would be the first one for every rank.
        torch.cuda.set_device(device)
    with building():
        method = instantiate(cfg.algorithm)
        method.check_workers(workers)
        startup.current().enter(startup.DATA)
        dataset = dataset_of(cfg.dataset)
        startup.current().enter(startup.BUILD)
    compatibility.check_targets(cfg, dataset)
    samples = len(dataset.train)
    compatibility.check_size(cfg, algorithm, workers, samples)
    oracle = build_oracle(cfg, dataset, device)
    # Only now: whether there is batch norm is known when the network is built.
    compatibility.check_problem(cfg, method, oracle, dataset.train)
    compatibility.check_compute(cfg, method, workers, oracle)
    with building():
        # Under `building`, since what a method says to a network or a problem is about the user's choice.
        prepare_method(method, cfg, samples, workers, oracle.replica)
        if method.per_sample or "variance_factor" in cfg.run.diagnostics:
            oracle.sample_norms  # noqa: B018 (refuses a network with layers that cannot tell them)
    # Samples that are streamed are decoded on the CPU by their ids; samples in a GPU's memory are chosen there, and ids
    # on the CPU would be copied in each step.
    batches = build_batches(cfg, method, samples, workers, "cpu" if oracle.streams else device)
    schedule = schedule_of(cfg, workers, batches.size)
    if rank == 0:
        for line in warnings(cfg, method.largest_rate(), device):
            log.warning("%s", line)
    components = RunComponents(cfg, workers, device, dataset, oracle, method, schedule, batches)
    # Asked for here, though the executor needs it first: nothing is written before this returns.
    if method.cuts_network:
        components.partition  # noqa: B018 (refuses a network that cannot be cut)
    return components


def check_run(cfg: DictConfig, datasets: dict[str, Any]) -> None:
    """Refuse a run that `build_run` would refuse for its algorithm, its workers or its number of samples.

    Args:
        cfg: the composed configuration.
        datasets: data sets by their configuration, so that the jobs of a sweep load each once.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    targets.check_found(cfg)
    algorithm = get_class(cfg.algorithm._target_)
    workers = workers_of(cfg, algorithm)
    compatibility.check_algorithm(cfg, algorithm, workers)
    with building():
        instantiate(cfg.algorithm).check_workers(workers)
    key = OmegaConf.to_yaml(cfg.dataset)
    if key not in datasets:
        try:
            datasets[key] = dataset_of(cfg.dataset)
        except InputError:
            # A sweep that goes on may have no job left that needs the data.
            if not cfg.run.resume:
                raise
            return
    compatibility.check_targets(cfg, datasets[key])
    compatibility.check_size(cfg, algorithm, workers, len(datasets[key].train))


def build_oracle(cfg: DictConfig, dataset: Any, device: torch.device) -> NetworkOracle:
    """Build the network with its initial weights, and put it and the data on the device.

    Raises:
        InputError: naming the key, the value and what is allowed.
    """
    # Built on the CPU and moved: a GPU's generator would draw other initial weights from the same seed.
    module = build_module(cfg, dataset).to(device)
    dataset.to(device)
    run, on_gpu = cfg.run, device.type == "cuda"
    return NetworkOracle(
        Replica(module, channels_last=run.channels_last),
        dataset.train,
        seed=cfg.seed,
        precision=run.precision,
        # On a CPU the network's operators take most of the time; there only the update is compiled.
        compiled=run.batch_size if run.compile and on_gpu else None,
        micro_batch=run.micro_batch,
        graphs=CudaGraphs(device) if run.capture == "auto" and on_gpu else None,
        side_stream=CudaSideStream(device) if on_gpu else None,
        # A full gradient goes through the samples in pieces; a piece is no larger than memory was said to allow.
        piece=min(run.eval_batch_size, run.micro_batch or run.eval_batch_size),
    )


def build_batches(cfg: DictConfig, method: Stateful, samples: int, workers: int, device: torch.device | str) -> Batches:
    """Return the batches of a run.

    Raises:
        InputError: there is none.
    """
    size, epochs = update_samples(cfg, method, workers), cfg.run.epochs
    batches = Batches(
        samples=samples,
        size=size,
        seed=cfg.seed,
        epochs=epochs,
        total=count_pushes(method, samples=samples, size=size, epochs=epochs),
        device=device,
        # A dual method's variables lie with their samples, so each worker draws from a shard of its own.
        shards=workers if method.own_shard or method.needs != "gradients" else None,
        replacement=method.replacement,
    )
    # Without an update there would be neither a row of metrics nor a result to write.
    if not len(batches):
        what = f"is too short for a single update on {samples} samples"
        raise InputError.of("run.epochs", epochs, what, f"{1 / samples:.2g} or more")
    return batches


def schedule_of(cfg: DictConfig, workers: int, batch: int) -> Schedule:
    """Return the learning-rate schedule of a run with `workers` workers and `batch` samples an update."""
    options: Any = OmegaConf.to_container(cfg.schedule)
    return Schedule(workers=workers, epochs=cfg.run.epochs, batch=batch, **options)
