"""The ranks of a run on real processes: what each of them runs.

With a parameter server rank 0 is the server and rank m ≥ 1 is worker m − 1; collective methods have as many ranks as
workers, and pipelines as modules. Rank 0 owns the run folder. Spawned ranks are started and watched by
`runner.processes.spawn`, which is not a rank itself; under `torchrun` every rank starts here by itself.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from hydra.utils import get_class
from omegaconf import DictConfig

from runner.config import launcher, signals
from runner.config.errors import InputError
from runner.config.exit_codes import WRONG_INPUT
from runner.loop.executor import Executor
from runner.loop.stop import Stop
from runner.loop.stop_signals import StopSignals
from runner.loop.train_control import TrainControl
from runner.processes.child import FindLost
from runner.processes.interface import named_interface
from runner.processes.join import join, waits_for_config
from runner.processes.refusal import told_by_rank_zero
from runner.processes.rendezvous import (
    Rendezvous,
    broadcast_state,
    comm_device,
    join_group,
    launched_by_torchrun,
    rank_zero_first,
)
from runner.processes.spawn import spawn
from runner.train import targets
from runner.train.build import build_run
from runner.train.components import RunComponents
from runner.train.executors import Rank, Topology, topology_of
from runner.train.profiling import RankProfile, gather, run_calls
from runner.train.train import restore, train
from runner.train.workers import set_workers, workers_of


def run_on_processes(cfg: DictConfig, folder: Path | None) -> int:
    """Run `cfg` on processes: spawn them, or join those that `torchrun` started.

    Returns:
        The exit code of the run.

    Raises:
        InputError: wrong input, as a number of workers that does not fit `torchrun`'s.
    """
    servers = topology_of(cfg).servers
    if launcher.world_size() > 1 or launched_by_torchrun():
        try:
            if not waits_for_config(cfg):
                check_launched(cfg)
        except InputError:
            # All ranks find the same: one on each machine says it.
            if launcher.speaks():
                raise
            return WRONG_INPUT
        return join(cfg, folder, server=bool(servers), run_rank=run_rank)
    assert folder is not None
    if cfg.cluster.interface is not None:
        named_interface(cfg.cluster.interface)
    # Counted before anything is spawned: a mistake in it is said once, not by every rank.
    # Set before the ranks get their copy of the configuration: all of them count alike.
    cfg.cluster.workers = workers_of(cfg, get_class(cfg.algorithm._target_))
    return spawn(cfg, folder, server=bool(servers), world=cfg.cluster.workers + servers, run_rank=run_rank)


def end_with_rank_0(cfg: DictConfig, folder: Path) -> int:
    """End all ranks of a launcher for a run in whose folder nothing is left to do; rank 0 calls it."""
    if launcher.world_size() == 1:
        return 0
    return join(cfg, folder, server=False, run_rank=lambda *arguments, **options: 0)


def check_launched(cfg: DictConfig) -> None:
    """Check what another launcher has started, and take the number of workers from it.

    Raises:
        InputError: wrong input, as a number of workers that does not fit.
    """
    launcher.check_complete()
    algorithm, world = get_class(cfg.algorithm._target_), launcher.world_size()
    if algorithm.shares_memory and not launcher.one_machine():
        here = os.environ.get("LOCAL_WORLD_SIZE", "maybe fewer")
        what = f"algorithm={cfg.names.algorithm}: the launcher started {world} processes, {here} of them here"
        raise InputError(f"{what}; allowed: all on one machine, whose memory they share")
    set_torchrun_workers(cfg, world)
    workers_of(cfg, algorithm)


def set_torchrun_workers(cfg: DictConfig, world: int) -> None:
    """Take the number of workers from how many processes `torchrun` started.

    Raises:
        InputError: another number was given, or there is no worker.
    """
    workers = world - topology_of(cfg).servers
    if workers < 1:
        raise InputError(f"torchrun started {workers + 1} process; allowed: 2 or more (a server and its workers)")
    set_workers(cfg, workers, f"torchrun started {workers} workers")


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
    # A rank of another machine, which has the configuration from rank 0, may lack the user's code.
    targets.check_found(cfg)
    # From the configuration: the components, which know the method, are built only below.
    topology = topology_of(cfg)
    if rendezvous.rank:
        # Ctrl-C reaches every process of a terminal; rank 0 decides what to do about it and tells the others. The
        # signals of a scheduler a collective's rank heeds later (`_follow`), to have all ranks stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Rank 0 decodes the data into the cache that the others open, and is the one to say what is wrong.
    with rank_zero_first(rendezvous):
        # A server only evaluates, so it may share the first worker's GPU.
        components = build_run(cfg, rank=max(0, rendezvous.rank - topology.servers))
    # Around `train` as a whole: it still reads the result from a shared memory after the executor's run.
    own = RankProfile(components, rendezvous)
    with ExitStack() as at_end:
        rank = Rank(rendezvous, folder, find_lost, report_step, at_end, own.measure_worker)
        make = functools.partial(topology.on_process, components, rank)
        # All ranks alike: one group, whose collectives also carry the checkpoint.
        if topology.serve is None:
            return _run_in_group(components, topology, rank, make, own)
        if rendezvous.rank:
            # torchrun sends SIGTERM to all: the server saves, and its end then ends its workers.
            signals.ignore()
            return _serve(components, topology.serve, rank, own)
        assert folder is not None
        profiles = functools.partial(gather, components, rendezvous)
        return train(components, folder, make, virtual=False, report_step=report_step, other_profiles=profiles)


def _serve(
    components: RunComponents, serve: Callable[[RunComponents, Rank], None], rank: Rank, own: RankProfile
) -> int:
    """Be a worker of a server to the end of the run, and return the exit code."""
    try:
        with told_by_rank_zero(rank.rendezvous):
            serve(components, rank)
    except Stop as reason:
        return reason.code
    own.send()
    return 0


def _run_in_group(
    components: RunComponents,
    topology: Topology,
    rank: Rank,
    make: Callable[[TrainControl], Executor],
    own: RankProfile,
) -> int:
    """Run one of several ranks that are all alike, but that rank 0 owns the run folder."""
    join_group(rank.rendezvous, torch.device("cpu") if topology.meets_on_cpu else components.device)
    try:
        if rank.rendezvous.rank:
            return _follow(components, rank, make, own)
        assert rank.folder is not None
        return train(
            components,
            rank.folder,
            make,
            virtual=False,
            share_checkpoint=functools.partial(broadcast_state, device=comm_device(components.device)),
            report_step=rank.report_step,
            watched=True,
            other_profiles=functools.partial(gather, components, rank.rendezvous),
        )
    finally:
        # Also after a failure: PyTorch complains about a group that is still there when the process ends.
        dist.destroy_process_group()


def _follow(components: RunComponents, rank: Rank, make: Callable[[TrainControl], Executor], own: RankProfile) -> int:
    """Run a rank other than 0, which writes nothing; one that is asked to stop has all of them stop."""
    with StopSignals(follows=True) as stop:
        control = components.train_control(stopping=lambda: bool(stop), report_step=rank.report_step)
        executor = make(control)
        # Rank 0 sends the checkpoint that it goes on from, from inside `train`; nothing comes between.
        saved = broadcast_state(None, comm_device(components.device))
        if saved:
            # Every rank restores the same state, rank 0's, so all continue at the same update.
            restore(saved, control, executor)
        own.measure(run_calls(components, control, executor))
        try:
            with told_by_rank_zero(rank.rendezvous):
                executor.run()
        except Stop as reason:
            return reason.code
    own.send()
    return 0
