"""Watch the ranks of a run on this machine: who is dead, who is stuck, and what that means for the run.

The supervising process is not a rank. What a fault costs:

- A worker of a parameter server that died or is stuck: the batch that it held. It is killed, so that a stuck one cannot
  come back with an old gradient, and the server is informed; the others go on.
- A rank of a collective or a pipeline, or any rank before all have joined: the run, back to its last checkpoint. The
  others wait in a transfer that cannot end. A kill breaks their connections, and rank 0 then saves what it can.
- Rank 0, which owns the run folder: the run, back to its last checkpoint.
- This process: everything, as its ranks end with it. No orphan computes on.
"""

from __future__ import annotations

import logging
import signal
import time
from multiprocessing import connection
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from runner.config import startup
from runner.config.forkserver import forkserver_context
from runner.processes import leftovers
from runner.processes.child import DEAD_PEER, RunRank, child_main
from runner.processes.heartbeat import Heartbeats, exit_seconds_for, max_silence_for
from runner.run_folder.folders import SharedLock

log = logging.getLogger("dcrun")


FORK_SERVER_LOST = 255
"""What multiprocessing calls the exit code of a process whose fork server is gone, with all its processes."""


def rank_name(rank: int, server: bool) -> str:
    """Return what a rank is called: the server, if rank 0 is one, or a worker's number."""
    if not server:
        return f"worker {rank}"
    return "server" if rank == 0 else f"worker {rank - 1}"


class ProcessSupervisor:
    """The processes of a run, as seen by the process that started them.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder.
        server: whether rank 0 is a parameter server.
        world: number of ranks.
        run_rank: what each rank runs, see `RunRank`.
    """

    def __init__(self, cfg: DictConfig, folder: Path, *, server: bool, world: int, run_rank: RunRank) -> None:
        self.server = server
        self.max_silence = max_silence_for(cfg.cluster.timeout)
        self.exit_seconds = exit_seconds_for(cfg.cluster.timeout)
        # With `fork` a rank would inherit the locks of this process's threads, torch's among them, maybe locked for
        # good. With `spawn` each rank would import torch anew. The fork server imports it once.
        context = forkserver_context(run_rank.__module__)
        leftovers.remove_leftovers()
        self.rendezvous_folder = leftovers.make_folder()
        self.heartbeats = Heartbeats(context, world, cfg.cluster.timeout)
        theirs, self.pipe = context.Pipe(duplex=False)
        plain = OmegaConf.to_container(cfg, resolve=True)
        path = str(self.rendezvous_folder / "store")
        shared = (theirs, SharedLock(folder))
        self.processes = [
            context.Process(
                target=child_main,
                args=(rank, world, path, plain, folder, run_rank, self.heartbeats, *(shared if rank == 0 else ())),
                kwargs={"began": startup.current().began},
                name=self.name(rank),
            )
            for rank in range(world)
        ]
        self.dropped: set[int] = set()

    def name(self, rank: int) -> str:
        """Return what a rank is called."""
        return rank_name(rank, self.server)

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
            # Wakes at once when a rank ends; the timeout is for finding those that hang.
            connection.wait(running, timeout=self.heartbeats.interval)
            now = time.monotonic()
            if now - looked > self.max_silence / 2:
                # This process itself was stopped, maybe with all others (Ctrl-Z), so their silence says nothing.
                self.heartbeats.reset()
            looked = now
            # Look at rank 0 first: once it has ended, it has said how the run ended, and the others end because of it.
            code = self.processes[0].exitcode
            if code is not None:
                return (DEAD_PEER, self._fault(0)) if code < 0 or code == FORK_SERVER_LOST else (code, None)
            for rank in range(1, len(self.processes)):
                fault = None if rank in self.dropped else self._fault(rank)
                if fault is None:
                    continue
                if self.server and self.heartbeats.joined:
                    self._drop(rank, fault)
                    continue
                return self._stop(rank, fault)
            fault = self._fault(0)
            if fault is not None:
                return DEAD_PEER, fault

    def _stop(self, rank: int, fault: str) -> tuple[int, str | None]:
        """End the run because of a rank that it cannot do without; return what `watch` returns."""
        code = self.processes[rank].exitcode
        self.processes[rank].kill()
        if not self.heartbeats.joined and code in (1, 2):
            return code, None  # the rank has said itself what was wrong
        # The broken connection wakes rank 0, which saves what it can.
        self.processes[0].join(self.exit_seconds)
        return DEAD_PEER, fault

    def _fault(self, rank: int) -> str | None:
        """Return what is wrong with a rank, if anything: who, what, and how far it had come."""
        process, code = self.processes[rank], self.processes[rank].exitcode
        if code is not None:
            # If rank 0 ended by itself, its exit code is the run's, even if it ended after `watch` looked at it.
            if rank == 0 and code >= 0 and code != FORK_SERVER_LOST:
                return None
            # Without a server all ranks end together, some a little before rank 0. That is no fault.
            if (code == 0 and (not self.server or self.heartbeats.finished(rank))) or code == DEAD_PEER:
                return None
            what = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"died with exit code {code}"
            if code == FORK_SERVER_LOST:
                what = "ended with the fork server, which was killed"
        elif (silence := self.heartbeats.silence(rank)) > self.max_silence:
            what = f"is stuck: no heartbeat for {silence:.1f} s"
        else:
            return None
        step, ago = self.heartbeats.last_step(rank)
        thing = "message" if self.server else "step"
        last = f"its last {thing} was number {step}, {ago:.1f} s ago" if step else f"before its first {thing}"
        return f"{self.name(rank)} (rank {rank}, pid {process.pid}) {what}; {last}"

    def _drop(self, rank: int, fault: str) -> None:
        """Go on without a worker of a parameter server."""
        self.dropped.add(rank)
        log.info("%s", fault)
        # A worker that seems stuck may only be slow. Once killed it cannot push after its batch was handed out again.
        self.processes[rank].kill()
        self.pipe.send((rank - 1, fault))

    def end(self) -> None:
        """End whoever is still there; nothing of the run stays behind."""
        # All share one deadline, so that a run with many ranks takes no longer to end than one with few.
        deadline = time.monotonic() + self.exit_seconds
        for process in self.processes:
            if process.pid is None:
                continue
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        leftovers.discard(self.rendezvous_folder)
