"""The ranks of a run on real processes: what each of them does.

With a parameter server rank 0 is the server and rank m ≥ 1 is worker m − 1; collective methods have as many ranks as
workers, and pipelines as modules. Rank 0 owns the run folder. Spawned ranks are started and watched by `spawn`,
which is no rank itself; under `torchrun` every rank starts here by itself.
"""

from __future__ import annotations

import functools
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hydra.utils import get_class
from omegaconf import DictConfig

from algorithms.base import Collective, ParameterServer
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.config.errors import InputError
from runner.loop.stop import Stop
from runner.loop.stop_signals import StopSignals
from runner.loop.train_control import TrainControl
from runner.processes.child import FindLost
from runner.processes.collective import ProcessCollective
from runner.processes.links import Link
from runner.processes.rendezvous import (
    Rendezvous,
    comm_device,
    join_group,
    launched_by_torchrun,
    torchrun_rendezvous,
)
from runner.processes.server import ProcessServer
from runner.processes.shared_memory import MemoryServer, MemoryWorker
from runner.processes.spawn import spawn
from runner.processes.worker import serve_worker
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Activity
from runner.train import build, pipeline
from runner.train.train import Executor, train

READY = "rank 0 is ready"


def run_on_processes(cfg: DictConfig, folder: Path | None) -> int:
    """Run `cfg` on processes: spawn them, or join those that `torchrun` started.

    Returns:
        The exit code of the run.

    Raises:
        InputError: wrong input, as a number of workers that does not fit `torchrun`'s.
    """
    algorithm = get_class(cfg.algorithm._target_)
    if launched_by_torchrun():
        local = os.environ.get("LOCAL_WORLD_SIZE")
        if issubclass(algorithm, SharedMemory) and local not in (None, os.environ["WORLD_SIZE"]):
            what = (
                f"algorithm={cfg.names.algorithm}: torchrun started {os.environ['WORLD_SIZE']} processes, {local} here"
            )
            raise InputError(f"{what}; allowed: all on one machine, whose memory they share")
        rendezvous = torchrun_rendezvous(cfg.cluster.timeout)
        fit(cfg, rendezvous.world)
        build.workers_of(cfg, algorithm)
        return run_rank(cfg, folder, rendezvous, find_lost=list)
    assert folder is not None
    cfg.cluster.workers = build.workers_of(cfg, algorithm)
    servers = _servers(cfg)
    return spawn(cfg, folder, server=bool(servers), world=cfg.cluster.workers + servers, run_rank=run_rank)


def _servers(cfg: DictConfig) -> int:
    """Ranks that are no workers: a parameter server, or the owner of a shared memory, which hands out batches too."""
    return 1 if issubclass(get_class(cfg.algorithm._target_), ParameterServer | SharedMemory) else 0


def fit(cfg: DictConfig, world: int) -> None:
    """Take the number of workers from how many processes `torchrun` started.

    Raises:
        InputError: another number was given, or there is no worker.
    """
    given, workers = cfg.cluster.workers, world - _servers(cfg)
    if workers < 1:
        raise InputError(f"torchrun started {workers + 1} process; allowed: 2 or more (a server and its workers)")
    if given is not None and given != workers:
        raise InputError.of("cluster.workers", given, f"torchrun started {workers} workers", f"{workers}, or null")
    cfg.cluster.workers = workers


def run_rank(
    cfg: DictConfig,
    folder: Path | None,
    rendezvous: Rendezvous,
    find_lost: FindLost = list,
    report_step: Callable[[int], None] = lambda step: None,
) -> int:
    """Do what this rank has to do, to the end of the run.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder, for rank 0.
        rendezvous: where the ranks meet.
        find_lost: see `FindLost`; asked by a server from when all workers have joined.
        report_step: told, step by step, how far this rank has come.

    Returns:
        The exit code.
    """
    parameter_server = bool(_servers(cfg))
    if rendezvous.rank:
        # Ctrl-C reaches every process of a terminal; rank 0 decides what to do about it and tells the others.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if rendezvous.local:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # Rank 0 first: it decodes the data into the cache that the others open.
        rendezvous.store.wait([READY])
    parts = build.build_run(cfg, rank=max(0, rendezvous.rank - 1) if parameter_server else rendezvous.rank)
    # Rank 0 alone says why a network cannot be cut.
    modules = pipeline.partition(parts) if isinstance(parts.method, Pipeline) else None
    if rendezvous.rank == 0:
        rendezvous.store.set(READY, "yes")
    if modules is not None:
        # Neighbours send to each other whenever they are ready; over NCCL their messages would have to come in order.
        join_group(rendezvous, torch.device("cpu"))
        return _together(
            parts,
            folder,
            rendezvous,
            report_step,
            lambda control: pipeline.on_process(parts, modules, rendezvous, control),
        )
    return (
        _serve(parts, folder, rendezvous, find_lost, report_step)
        if parameter_server
        else _collect(parts, folder, rendezvous, report_step)
    )


def _serve(
    parts: build.RunComponents,
    folder: Path | None,
    rendezvous: Rendezvous,
    find_lost: FindLost,
    report_step: Callable[[int], None],
) -> int:
    method, n = parts.method, parts.oracle.replica.weights.numel()
    shared = method if isinstance(method, SharedMemory) else None
    if shared is not None:
        method = MemoryServer(shared, rendezvous.store, len(parts.dataset.train))
    assert isinstance(method, ParameterServer)
    if rendezvous.rank:
        # torchrun sends it to all: the server saves, and that it is gone then ends its workers.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker = rendezvous.rank - 1
        link = Link(rendezvous, worker)
        own = {"n": n, "workers": parts.workers, "seed": parts.cfg.seed}
        serve_worker(
            method.worker(worker) if shared is None else MemoryWorker(shared, rendezvous.store, **own),
            link,
            worker=worker,
            layout=method.layout(n),
            oracle=parts.oracle,
            batches=parts.batches,
            clock=parts.clock(),
            gradients=method.evaluations,
            workers=parts.workers,
            rounds=method.rounds(n),
            restoring=method.restoring(n),
            shard_gradients=method.barrier_cost.gradients,
            report_step=report_step,
        )
        return 0
    assert folder is not None
    servers: list[ProcessServer] = []

    def make(control: TrainControl) -> Executor:
        server = ProcessServer(
            method,
            links=[Link(rendezvous, worker) for worker in range(parts.workers)],
            replica=parts.oracle.replica,
            batches=parts.batches,
            control=control,
            activity=Activity(parts.workers),
            find_lost=find_lost,
            clock=parts.clock(),
            recorder=Recorder.of(parts, folder) if shared is None else None,
            compiled=parts.cfg.run.compile,
        )
        if isinstance(method, MemoryServer):
            method.rate = control.rate
        servers.append(server)
        return server

    try:
        return train(
            parts, folder, virtual=False, make=make, lost=lambda: servers[0].workers_lost, report_step=report_step
        )
    finally:
        if isinstance(method, MemoryServer):
            method.close()


def _collect(
    parts: build.RunComponents, folder: Path | None, rendezvous: Rendezvous, report_step: Callable[[int], None]
) -> int:
    method = parts.method
    assert isinstance(method, Collective)
    join_group(rendezvous, parts.device)

    def make(control: TrainControl) -> ProcessCollective:
        return ProcessCollective(
            method,
            rendezvous=rendezvous,
            oracle=parts.oracle,
            batches=parts.batches,
            control=control,
            activity=Activity(parts.workers),
            clock=parts.clock(),
            compiled=parts.cfg.run.compile,
        )

    return _together(parts, folder, rendezvous, report_step, make)


def _together(
    parts: build.RunComponents,
    folder: Path | None,
    rendezvous: Rendezvous,
    report_step: Callable[[int], None],
    make: Callable[[TrainControl], Executor],
) -> int:
    """Run one of several ranks that are all alike, but that rank 0 owns the run folder; all have joined the group."""
    try:
        if rendezvous.rank == 0:
            assert folder is not None
            share = functools.partial(_share, device=comm_device(parts.device))
            return train(
                parts, folder, virtual=False, make=make, share=share, report_step=report_step, watched=rendezvous.local
            )
        return _follow(parts, make, report_step)
    finally:
        dist.destroy_process_group()


def _follow(
    parts: build.RunComponents, make: Callable[[TrainControl], Executor], report_step: Callable[[int], None]
) -> int:
    """Run a rank other than 0, which writes nothing; one that is asked to stop has all of them stop."""
    cfg = parts.cfg
    with StopSignals(follows=True) as stop:
        control = TrainControl(
            samples=len(parts.dataset.train),
            epochs=cfg.run.epochs,
            eval_every=cfg.run.eval_every,
            checkpoint_every=cfg.run.checkpoint_every or cfg.run.eval_every,
            schedule=parts.schedule,
            stopping=lambda: bool(stop),
            report_step=report_step,
        )
        executor = make(control)
        resumed = _share(None, comm_device(parts.device))
        if resumed:
            control.load_state_dict(resumed["course"])
            executor.load_state_dict(resumed["executor"])
        try:
            executor.run()
        except Stop as reason:
            return reason.code
    return 0


def _share(state: dict[str, Any] | None, device: torch.device) -> dict[str, Any]:
    """Send rank 0's checkpoint to all ranks; tensors and plain values only, empty where there is none."""
    file = io.BytesIO()
    if dist.get_rank() == 0:
        torch.save(state or {}, file)
    size = torch.tensor([len(file.getbuffer())], device=device)
    dist.broadcast(size, 0)
    content = torch.zeros(int(size), dtype=torch.uint8)
    if dist.get_rank() == 0:
        content.copy_(torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8))
    content = content.to(device)
    dist.broadcast(content, 0)
    return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), map_location="cpu", weights_only=True)
