"""Start the ranks of a run on this machine, watch them, and answer for the exit code.

The launching process is no rank. It lists who is who in `dcrun.log`, tells the server of workers that died or stopped
giving signs of life, ends everyone when the run cannot go on, and leaves no orphan: a rank whose launcher is gone ends
with it. Ranks are forked from a small server process that has imported torch once.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from multiprocessing import connection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from runner.processes.child import DEAD_PEER, RunRank, Signs, be
from runner.run_folder.contents import SUMMARY, has_checkpoints, read_summary
from runner.run_folder.jsonl import write_document

log = logging.getLogger("dcrun")

PATIENCE = 0.8
"""Share of `cluster.timeout` for which a rank may be silent; the rest is for ending the others."""
FAREWELL = 5.0
"""Seconds that ranks get to end by themselves, at most."""


class Ranks:
    """The processes of a run, as seen by the launcher.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder.
        server: whether rank 0 is a parameter server.
        world: number of ranks.
        run_rank: what each rank runs, see `RunRank`.
    """

    def __init__(self, cfg: DictConfig, folder: Path, *, server: bool, world: int, run_rank: RunRank) -> None:
        self.server = server
        self.patience = PATIENCE * cfg.cluster.timeout
        self.farewell = min(FAREWELL, (1 - PATIENCE) * cfg.cluster.timeout)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([run_rank.__module__])
        self.rendezvous_folder = Path(tempfile.mkdtemp(prefix="dcrun-"))
        self.signs = Signs(context, world, cfg.cluster.timeout)
        theirs, self.pipe = context.Pipe(duplex=False)
        plain = OmegaConf.to_container(cfg, resolve=True)
        path = str(self.rendezvous_folder / "store")
        self.processes = [
            context.Process(
                target=be,
                args=(rank, world, path, plain, folder, run_rank, self.signs, theirs if rank == 0 else None),
                name=self.name(rank),
            )
            for rank in range(world)
        ]
        self.lost: set[int] = set()

    def name(self, rank: int) -> str:
        """Return what a rank is called: the server, or a worker's number."""
        if not self.server:
            return f"worker {rank}"
        return "server" if rank == 0 else f"worker {rank - 1}"

    def start(self) -> None:
        """Start all ranks and list them in the log."""
        for rank, process in enumerate(self.processes):
            process.start()
            log.info("%s is rank %d, pid %s", process.name, rank, process.pid)

    def watch(self) -> tuple[int, str | None]:
        """Wait for rank 0 to end.

        Returns:
            The exit code, and a line about the peer at fault if there is one.
        """
        looked = time.monotonic()
        while True:
            running = [process.sentinel for process in self.processes if process.exitcode is None]
            connection.wait(running, timeout=self.signs.every)
            now = time.monotonic()
            if now - looked > self.patience / 2:
                # This process itself was stopped, maybe with all others (Ctrl-Z): their silence says nothing.
                self.signs.forgive()
            looked = now
            code = self.processes[0].exitcode
            if code is not None:
                return (DEAD_PEER, self._fault(0)) if code < 0 else (code, None)
            for rank in range(1, len(self.processes)):
                fault = None if rank in self.lost else self._fault(rank)
                if fault is None:
                    continue
                if self.server and self.signs.joined:
                    self._lose(rank, fault)
                    continue
                code = self.processes[rank].exitcode
                self.processes[rank].kill()
                if not self.signs.joined and code in (1, 2):
                    return code, None  # it has said itself what was wrong
                # The broken connection wakes rank 0, which saves what it can.
                self.processes[0].join(self.farewell)
                return DEAD_PEER, fault
            fault = self._fault(0)
            if fault is not None:
                return DEAD_PEER, fault

    def _fault(self, rank: int) -> str | None:
        """Return what is wrong with a rank, if anything: who, what, and how far it had come."""
        process, code = self.processes[rank], self.processes[rank].exitcode
        if code is not None:
            # Rank 0 answers for the run whenever it ends by itself, also between two looks of `watch`.
            if rank == 0 and code >= 0:
                return None
            # Without a server ranks end together, some a little before rank 0, which then finds out by itself.
            if (code == 0 and (not self.server or self.signs.ended(rank))) or code == DEAD_PEER:
                return None
            what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"died with exit code {code}"
        elif (silence := self.signs.silence(rank)) > self.patience:
            what = f"is stuck: no sign of life for {silence:.1f} s"
        else:
            return None
        step, ago = self.signs.last(rank)
        thing = "message" if self.server else "step"
        last = f"its last {thing} was number {step}, {ago:.1f} s ago" if step else f"before its first {thing}"
        return f"{self.name(rank)} (rank {rank}, pid {process.pid}) {what}; {last}"

    def _lose(self, rank: int, fault: str) -> None:
        self.lost.add(rank)
        log.info("%s", fault)
        self.processes[rank].kill()
        self.pipe.send((rank - 1, fault))

    def end(self) -> None:
        """End whoever is still there; nothing of the run stays behind."""
        deadline = time.monotonic() + self.farewell
        for process in self.processes:
            if process.pid is None:
                continue
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        shutil.rmtree(self.rendezvous_folder, ignore_errors=True)


def launch(cfg: DictConfig, folder: Path, *, server: bool, world: int, run_rank: RunRank) -> int:
    """Run all ranks to the end and return the run's exit code.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder.
        server: whether rank 0 is a parameter server, and so no worker.
        world: number of ranks.
        run_rank: what each rank runs, see `RunRank`.
    """
    ranks = Ranks(cfg, folder, server=server, world=world, run_rank=run_rank)

    def forward(number: int, frame: object) -> None:
        # A terminal sends Ctrl-C to all; rank 0 alone acts on it. SIGTERM comes here only.
        if number == signal.SIGTERM and ranks.processes[0].pid is not None:
            os.kill(ranks.processes[0].pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ranks.start()
        code, fault = ranks.watch()
        if fault is not None:
            log.error("%s; the run stopped, %s", fault, resume_hint(folder))
            _interrupted(folder, fault)
        return code
    finally:
        ranks.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_hint(folder: Path) -> str:
    """Return what the user of a stopped run can do."""
    return f"continue it with run.resume={folder}" if has_checkpoints(folder) else "before its first checkpoint"


def _interrupted(folder: Path, fault: str) -> None:
    """Write down why a run ended that could not do so itself."""
    summary = read_summary(folder)
    if summary.get("status") in ("running", "interrupted"):
        write_document(folder / SUMMARY, {**summary, "status": "interrupted", "error": fault})
