"""Start the ranks of a run on this machine, pass signals on, and answer for the exit code.

The process that spawns is not a rank. It writes to `dcrun.log` which process is which rank, and a
`ProcessSupervisor` watches the ranks. It leaves no orphan: a rank whose parent is gone ends too.
"""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

from omegaconf import DictConfig

from runner.processes.child import RunRank
from runner.processes.supervision import ProcessSupervisor
from runner.run_folder.contents import SUMMARY, has_checkpoints, read_summary
from runner.run_folder.jsonl import write_document
from runner.run_folder.summary_keys import INTERRUPTED, RUNNING, STATUS

log = logging.getLogger("dcrun")


def spawn(cfg: DictConfig, folder: Path, *, server: bool, world: int, run_rank: RunRank) -> int:
    """Run all ranks to the end and return the run's exit code.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder.
        server: whether rank 0 is a parameter server, and so no worker.
        world: number of ranks.
        run_rank: what each rank runs, see `RunRank`.
    """
    supervisor = ProcessSupervisor(cfg, folder, server=server, world=world, run_rank=run_rank)

    def forward(number: int, frame: object) -> None:
        # A terminal sends Ctrl-C to all processes, and rank 0 alone acts on it. SIGTERM reaches only this process, so
        # it is passed on.
        if number == signal.SIGTERM and supervisor.processes[0].pid is not None:
            os.kill(supervisor.processes[0].pid, number)

    # Before the ranks start, and until the last one is gone: a signal must not end this process and leave them behind.
    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        supervisor.start()
        code, fault = supervisor.watch()
        if fault is not None:
            log.error("%s; the run stopped, %s", fault, resume_hint(folder))
            _mark_interrupted(folder, fault)
        return code
    finally:
        supervisor.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_hint(folder: Path) -> str:
    """Return what the user of a stopped run can do."""
    return f"continue it with run.resume={folder}" if has_checkpoints(folder) else "before its first checkpoint"


def _mark_interrupted(folder: Path, fault: str) -> None:
    """Write into the summary why the run ended, if rank 0 could not do so itself."""
    summary = read_summary(folder)
    # Any other status is rank 0's own word on how the run ended, and stands.
    if summary.get(STATUS) in (RUNNING, INTERRUPTED):
        write_document(folder / SUMMARY, {**summary, STATUS: INTERRUPTED, "error": fault})
