"""Start the ranks of a run on this machine, watch them, and answer for the exit code.

The launching process is no rank. It lists who is who in `dcrun.log`, tells the server of workers that died or stopped
giving signs of life, ends everyone when the run cannot go on, and leaves no orphan: a rank whose launcher is gone ends
itself. Ranks are forked from a small server process that has imported torch once.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.outcome import guarded, log_to
from runner.records import write_document
from runner.tracking import SUMMARY

log = logging.getLogger("dcrun")

DEAD_PEER = 3
"""Exit code of a run that a dead or stuck peer stopped."""
BEAT = 0.5
"""Seconds between two signs of life."""
FAREWELL = 5.0
"""Seconds that ranks get to end by themselves once rank 0 has."""


class Ranks:
    """The processes of a run, as seen by the launcher.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder.
        server: whether rank 0 is a parameter server.
        world: number of ranks.
    """

    def __init__(self, cfg: DictConfig, folder: Path, *, server: bool, world: int) -> None:
        self.server = server
        self.timeout = cfg.cluster.timeout
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["runner.processes"])
        self.meeting_place = Path(tempfile.mkdtemp(prefix="dcrun-"))
        self.beats: Any = context.Array("d", [0.0] * world, lock=False)
        theirs, self.pipe = context.Pipe(duplex=False)
        plain = OmegaConf.to_container(cfg, resolve=True)
        path = str(self.meeting_place / "store")
        self.processes = [
            context.Process(
                target=_rank,
                args=(rank, world, path, plain, folder, self.beats, theirs if rank == 0 else None),
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
        for process in self.processes:
            process.start()
            log.info("%s pid %s", process.name, process.pid)

    def watch(self) -> tuple[int, str | None]:
        """Wait for rank 0 to end.

        Returns:
            The exit code, and a line about the peer at fault if there is one.
        """
        while True:
            running = [p.sentinel for rank, p in enumerate(self.processes) if rank not in self.lost]
            connection.wait(running, timeout=BEAT)
            code = self.processes[0].exitcode
            if code is not None:
                if code < 0:
                    return DEAD_PEER, f"{self.name(0)} was killed by signal {-code}"
                return code, None
            for rank in range(1, len(self.processes)):
                fault = None if rank in self.lost else self._fault(rank)
                if fault is None:
                    continue
                if not self.server:
                    # Rank 0 notices by itself when a transfer breaks, and can say in which step; not if it is stuck there.
                    self.processes[0].join(BEAT)
                    return self.processes[0].exitcode or DEAD_PEER, fault
                self._lose(rank, fault)
            fault = self._fault(0)
            if fault is not None:
                return DEAD_PEER, fault

    def _fault(self, rank: int) -> str | None:
        """Return what is wrong with a rank, if anything."""
        process, beat = self.processes[rank], self.beats[rank]
        if process.exitcode is not None:
            # Without a server ranks end together, some a little before rank 0.
            if process.exitcode == 0 and (not self.server or beat < 0):
                return None
            return f"{process.name} (pid {process.pid}) died: exit code {process.exitcode}"
        if beat > 0 and time.time() - beat > self.timeout:
            return f"{process.name} (pid {process.pid}) is stuck: no sign of life for {self.timeout:g} s"
        return None

    def _lose(self, rank: int, fault: str) -> None:
        self.lost.add(rank)
        log.warning("%s lost: %s", self.name(rank), fault)
        self.processes[rank].kill()
        self.pipe.send(rank - 1)

    def end(self) -> None:
        """End whoever is still there; nothing of the run stays behind."""
        deadline = time.monotonic() + FAREWELL
        for process in self.processes:
            if process.pid is None:
                continue
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        shutil.rmtree(self.meeting_place, ignore_errors=True)


def launch(cfg: DictConfig, folder: Path, *, server: bool, world: int) -> int:
    """Run all ranks to the end and return the run's exit code.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder.
        server: whether rank 0 is a parameter server, and so no worker.
        world: number of ranks.
    """
    ranks = Ranks(cfg, folder, server=server, world=world)

    def forward(number: int, frame: object) -> None:
        # A terminal sends Ctrl-C to all; rank 0 alone acts on it. SIGTERM comes here only.
        if number == signal.SIGTERM and ranks.processes[0].pid is not None:
            os.kill(ranks.processes[0].pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ranks.start()
        code, fault = ranks.watch()
        if fault is not None:
            line = f"{fault}; the run stopped; continue with run.resume={folder}"
            log.error(line)
            _interrupted(folder, fault)
        return code
    finally:
        ranks.end()
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(folder: Path, fault: str) -> None:
    """Write down why a run ended that could not do so itself."""
    path = folder / SUMMARY
    summary = json.loads(path.read_text()) if path.exists() else {}
    if summary.get("status") == "running":
        write_document(folder / SUMMARY, {**summary, "status": "interrupted", "error": fault})


def _rank(
    rank: int, world: int, path: str, plain: dict[str, Any], folder: Path, beats: Any, pipe: Connection | None
) -> None:
    """Be a rank: the target of a spawned process."""
    from runner import links, processes

    cfg = OmegaConf.create(plain)
    launcher = os.getppid()
    beats[rank] = time.time()
    threading.Thread(target=_live, args=(rank, beats, launcher), daemon=True, name="signs of life").start()
    log_to(folder)

    def lost() -> list[int]:
        found = []
        while pipe is not None and pipe.poll():
            found.append(pipe.recv())
        return found

    def run() -> int:
        meeting = links.at_file(path, rank, world, cfg.cluster.timeout)
        return processes.run_rank(cfg, folder if rank == 0 else None, meeting, lost)

    code = guarded(run, folder, f"rank {rank}")
    beats[rank] = -1.0
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a receiving thread may sit in a transfer from a dead worker for ever.
    os._exit(code)


def _live(rank: int, beats: Any, launcher: int) -> None:
    """Give signs of life, and end this process when its launcher is gone."""
    while True:
        time.sleep(BEAT)
        if beats[rank] < 0:
            return
        if os.getppid() != launcher:
            os._exit(DEAD_PEER)
        beats[rank] = time.time()
