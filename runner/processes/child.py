"""A spawned rank: what it does besides its part of the run, which is to live visibly and to end in time."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.config.exit_codes import guarded, log_to
from runner.processes.links import is_peers_fault, reason
from runner.processes.rendezvous import Rendezvous, file_rendezvous

log = logging.getLogger("dcrun")

DEAD_PEER = 3
"""Exit code of a run that a dead or stuck peer stopped, and of a rank that ends because of one."""
BEAT = 0.5
"""Seconds between two signs of life, at most."""
DIE_WITH_PARENT = 1
"""`prctl`'s PR_SET_PDEATHSIG."""

LostWorkers = Callable[[], list[tuple[int, str]]]
"""Return the workers that were found dead or stuck since the last call, and what happened to each."""
RunRank = Callable[[DictConfig, Path | None, Rendezvous, LostWorkers, Callable[[int], None]], int]
"""Run one rank to the end and return its exit code; see `runner.train.ranks.run_rank`, which is handed down here.

What a rank runs is built by the room above this one, so it comes as an argument. A spawned process gets it by name:
it must be a function of a module, not a closure.
"""


class Signs:
    """Signs of life of all ranks, in memory that they share with the launcher.

    Args:
        context: of multiprocessing.
        world: number of ranks.
        timeout: `cluster.timeout`, seconds.

    Attributes:
        every: seconds between two signs.
    """

    def __init__(self, context: BaseContext, world: int, timeout: float) -> None:
        self.every = min(BEAT, timeout / 20)
        self._beats: Any = context.Array("d", world, lock=False)
        self._steps: Any = context.Array("q", world, lock=False)
        self._when: Any = context.Array("d", world, lock=False)
        self._ended: Any = context.Array("b", world, lock=False)
        self._joined: Any = context.Value("b", 0, lock=False)

    def beat(self, rank: int) -> None:
        """Say that a rank lives."""
        # The monotonic clock is the same for all processes, and does not run while the machine sleeps.
        self._beats[rank] = time.monotonic()

    def step(self, rank: int, number: int) -> None:
        """Say how far a rank has come."""
        self._steps[rank] = number
        self._when[rank] = time.monotonic()

    def join(self) -> None:
        """Say that all ranks have found each other."""
        self._joined.value = 1

    def end(self, rank: int) -> None:
        """Say that a rank ends as it should."""
        self._ended[rank] = 1

    def forgive(self) -> None:
        """Take every rank to have given a sign just now."""
        for rank, beat in enumerate(self._beats):
            if beat:
                self.beat(rank)

    def silence(self, rank: int) -> float:
        """Return for how many seconds a rank has given no sign; 0 before its first one and at its end."""
        beat = self._beats[rank]
        return time.monotonic() - beat if beat and not self._ended[rank] else 0.0

    def last(self, rank: int) -> tuple[int, float]:
        """Return the number of a rank's last step or message, 0 if there was none, and how many seconds ago it was."""
        return self._steps[rank], time.monotonic() - self._when[rank]

    def ended(self, rank: int) -> bool:
        """Whether a rank said that it ends as it should."""
        return bool(self._ended[rank])

    @property
    def joined(self) -> bool:
        """Whether all ranks have found each other: only then can a run go on without one."""
        return bool(self._joined.value)


def be(
    rank: int,
    world: int,
    path: str,
    plain: dict[str, Any],
    folder: Path,
    run_rank: RunRank,
    signs: Signs,
    pipe: Connection | None,
) -> None:
    """Be a rank: the target of a spawned process.

    Args:
        rank: its number.
        world: number of ranks.
        path: file where the ranks meet.
        plain: the composed configuration.
        folder: the run folder.
        run_rank: what the rank runs, see `RunRank`.
        signs: where to give signs of life.
        pipe: from the launcher, which tells rank 0 of lost workers; None on other ranks.
    """
    cfg = OmegaConf.create(plain)
    _die_with_parent()
    signs.beat(rank)
    threading.Thread(target=_live, args=(rank, signs, os.getppid()), daemon=True, name="signs of life").start()
    log_to(folder)

    def lost() -> list[tuple[int, str]]:
        signs.join()
        found = []
        while pipe is not None and pipe.poll():
            found.append(pipe.recv())
        return found

    def run() -> int:
        rendezvous = file_rendezvous(path, rank, world, cfg.cluster.timeout)
        try:
            return run_rank(cfg, folder if rank == 0 else None, rendezvous, lost, lambda step: signs.step(rank, step))
        except RuntimeError as error:
            if rank == 0 or not is_peers_fault(error):
                raise
            # Whose fault it is, the launcher says.
            log.info("rank %d: %s", rank, reason(error))
            return DEAD_PEER

    code = guarded(run, folder, f"rank {rank}")
    signs.end(rank)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a receiving thread may sit in a transfer from a dead worker for ever.
    os._exit(code)


def _die_with_parent() -> None:
    """Have the kernel end this process with its parent, even when it is stopped; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)


def _live(rank: int, signs: Signs, parent: int) -> None:
    """Give signs of life, and end this process when its parent, and so the launcher, is gone."""
    while not signs.ended(rank):
        if os.getppid() != parent:
            os._exit(DEAD_PEER)
        signs.beat(rank)
        time.sleep(signs.every)
