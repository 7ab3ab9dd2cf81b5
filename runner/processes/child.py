"""The process of a spawned rank: it runs the rank, shows meanwhile that it lives, and ends in time."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from runner.config import signals, startup
from runner.config.exit_codes import log_to, run_guarded
from runner.config.output import lasting_output
from runner.config.process_settings import set_process
from runner.processes.heartbeat import Heartbeats
from runner.processes.links import is_peers_fault, reason
from runner.processes.rendezvous import Rendezvous, file_rendezvous
from runner.run_folder.folders import SharedLock, mark_interrupted

log = logging.getLogger("dcrun")

DEAD_PEER = 3
"""Exit code of a run that a dead or stuck peer stopped, and of a rank that ends because of one."""
FindLost = Callable[[], list[tuple[int, str]]]
"""Return the workers that were found dead or stuck since the last call, and what happened to each."""
RunRank = Callable[[DictConfig, Path | None, Rendezvous, FindLost, Callable[[int], None]], int]
"""Run one rank to the end and return its exit code; see `runner.train.ranks.run_rank`, which is handed down here.

What a rank runs is built by the room above this one, so it comes as an argument. A spawned process gets it by name:
it must be a function of a module, not a closure.
"""


def child_main(
    rank: int,
    world: int,
    path: str,
    plain: dict[str, Any],
    folder: Path,
    run_rank: RunRank,
    heartbeats: Heartbeats,
    pipe: Connection | None = None,
    lock: SharedLock | None = None,
    began: float | None = None,
) -> None:
    """Run a rank and end the process; the target of a spawned process.

    Args:
        rank: its number.
        world: number of ranks.
        path: file where the ranks meet.
        plain: the composed configuration.
        folder: the run folder.
        run_rank: what the rank runs, see `RunRank`.
        heartbeats: where to show that this rank lives.
        pipe: from the supervisor, which tells rank 0 of lost workers; None on other ranks.
        lock: the run folder's, which rank 0 holds with the launcher by having been given it; None on other ranks.
        began: when the command began that spawned the ranks, see `runner.config.startup`.
    """
    startup.begin(began=began)
    if rank:
        # A closed terminal and some schedulers signal every process; rank 0 alone acts on it and tells the others.
        signals.ignore()
    set_process()
    cfg = OmegaConf.create(plain)
    # Even when it is stopped. The parent is the fork server, which ends a while after the launcher does.
    signals.send_at_parents_end(signal.SIGKILL)
    # At once: from the first heartbeat on, a rank that hangs is noticed.
    heartbeats.beat(rank)
    # One writer: metrics, trace and checkpoints come from rank 0 alone.
    owned = folder if rank == 0 else None
    # The thread is a daemon: it beats until the very end, and never keeps the process from ending.
    threading.Thread(target=_keep_beating, args=(rank, heartbeats, owned), daemon=True, name="heartbeat").start()

    def run() -> int:
        rendezvous = file_rendezvous(path, rank, world, cfg.cluster.timeout, cfg.cluster.interface)
        find_lost, report_step = partial(_find_lost, heartbeats, pipe), partial(heartbeats.mark_step, rank)
        try:
            return run_rank(cfg, owned, rendezvous, find_lost, report_step)
        except RuntimeError as error:
            if rank == 0 or not is_peers_fault(error):
                raise
            # This rank knows only that a connection broke. The supervisor sees all ranks and says whose fault it is.
            log.info("rank %d: %s", rank, reason(error))
            return DEAD_PEER

    with lasting_output(), nullcontext() if rank else signals.raising():
        # Hydra set up logging in the process that spawned this one; here it has not run.
        log_to(folder)
        code = run_guarded(run, folder, f"rank {rank}")
        # The run has its exit code: a second signal, on its way to the first one's, must not change it.
        signals.ignore()
        # This must come before the process is gone, or the supervisor would report a finished rank as a dead one.
        heartbeats.mark_finished(rank)
        exit_at_once(code)


def _find_lost(heartbeats: Heartbeats, pipe: Connection | None) -> list[tuple[int, str]]:
    """Return what the supervisor has told of lost workers since the last call; see `FindLost`."""
    # The server asks for the first time when it has a link to each worker. Before that a run cannot do without any.
    heartbeats.mark_joined()
    found = []
    # Polled, not waited for: the server asks between two messages.
    # The end of the pipe is the end of the launcher, of which the heartbeat's thread makes what is to be made.
    with suppress(EOFError):
        while pipe is not None and pipe.poll():
            found.append(pipe.recv())
    return found


def exit_at_once(code: int) -> NoReturn:
    """End this process, with what was logged and printed written out."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # sys.exit would wait for other threads, and a receiving thread may sit in a transfer from a dead worker for ever.
    os._exit(code)


def _keep_beating(rank: int, heartbeats: Heartbeats, folder: Path | None) -> None:
    """Give heartbeats, and end this process when the one that spawned it, and so the supervisor, is gone.

    Args:
        rank: its number.
        heartbeats: where to give them.
        folder: the run folder, on rank 0: its summary then says why the run ended.
    """
    launcher = multiprocessing.parent_process()
    while not heartbeats.finished(rank):
        # A rank's parent is the fork server, so neither `getppid` nor the kernel tells of a launcher that was killed.
        # Its end of a pipe closes with it, and that is seen.
        if launcher is not None and not launcher.is_alive():
            if folder is not None:
                mark_interrupted(folder, "the process that started the ranks is gone")
            # From a thread nothing else ends the process: an exception would end the thread alone.
            os._exit(DEAD_PEER)
        heartbeats.beat(rank)
        time.sleep(heartbeats.interval)
