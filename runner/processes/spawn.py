"""Start the ranks of a run on this machine, pass signals on, and answer for the exit code.

The process that spawns is not a rank. It writes to `dcrun.log` which process is which rank, and a
`ProcessSupervisor` watches the ranks. It leaves no orphan: a rank whose parent is gone ends too.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from runner.config import signals
from runner.config.paths import as_typed
from runner.processes.child import RunRank
from runner.processes.interface import check_loopback
from runner.processes.supervision import ProcessSupervisor
from runner.run_folder.contents import has_checkpoints
from runner.run_folder.folders import mark_interrupted

log = logging.getLogger("dcrun")


def spawn(cfg: DictConfig, folder: Path, *, server: bool, world: int, run_rank: RunRank) -> int:
    """Run all ranks to the end and return the run's exit code.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder.
        server: whether rank 0 is a parameter server, and so no worker.
        world: number of ranks.
        run_rank: what each rank runs, see `RunRank`.

    Raises:
        InputError: processes of this machine cannot reach each other.
    """
    check_loopback("cluster", "processes")
    supervisor = ProcessSupervisor(cfg, folder, server=server, world=world, run_rank=run_rank)
    asked: list[signal.Signals] = []

    def forward(number: int, frame: object) -> None:
        asked.append(signal.Signals(number))
        # A terminal sends Ctrl-C to all processes, and rank 0 alone acts on it. Other signals may have reached only
        # this process, so they are passed on; rank 0 takes repetitions for one.
        if number != signal.SIGINT:
            _pass_on(supervisor, number)

    # Before the ranks start, and until the last one is gone: a signal must not end this process and leave them behind.
    with signals.handling(dict.fromkeys([signal.SIGINT, *signals.heeded()], forward)):
        try:
            supervisor.start()
            # What came before there was a rank 0 has reached nobody, not even a terminal's Ctrl-C.
            for number in asked[:1]:
                _pass_on(supervisor, number)
            code, fault = supervisor.watch()
        finally:
            supervisor.end()
    if fault is None:
        return code
    if asked and any(process.exitcode == -asked[0] for process in supervisor.processes):
        # A rank that had not come far enough to catch the signal; the run is stopped as was asked, and nobody's fault.
        return 128 + asked[0]
    log.error("%s; the run stopped, %s", fault, resume_hint(folder))
    mark_interrupted(folder, fault, better=True)
    return code


def _pass_on(supervisor: ProcessSupervisor, number: int) -> None:
    """Send rank 0 a signal, if it is there."""
    if (pid := supervisor.processes[0].pid) is not None:
        # Rank 0 may end between the question and the signal.
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def resume_hint(folder: Path) -> str:
    """Return what the user of a stopped run can do."""
    if not has_checkpoints(folder):
        return "before its first checkpoint"
    return f"continue it with {as_typed('run.resume', folder)}"
