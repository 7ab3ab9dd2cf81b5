"""Join the ranks that another launcher started, as `torchrun`, on this machine or on many; answer for the exit code.

Rank 0 monitors the others (`runner.processes.monitor`), and they it. So a rank that is dead, stuck or out of reach is
named and acted on within `cluster.timeout`, although nobody here is its parent. torchrun's agent does its own part:
once a rank of its machine has failed, it sends SIGTERM to the neighbours, and kills those that are left after half a
minute.
"""

from __future__ import annotations

import functools
import logging
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.config import launcher, signals
from runner.config.errors import InputError
from runner.config.exit_codes import UNEXPECTED, WRONG_INPUT
from runner.config.paths import expanded
from runner.loop.stop import PeerLost
from runner.processes.child import DEAD_PEER, RunRank, exit_at_once
from runner.processes.links import is_peers_fault, reason
from runner.processes.meeting import Meeting, meet
from runner.processes.monitor import Monitor
from runner.processes.monitor_client import End, MonitorClient
from runner.processes.spawn import resume_hint
from runner.processes.supervision import rank_name
from runner.run_folder.folders import is_locked, mark_interrupted

log = logging.getLogger("dcrun")

LOCK_SECONDS = 0.5
"""Seconds that the system gets to take the run's lock from a dead rank."""


def join(cfg: DictConfig, folder: Path | None, *, server: bool, run_rank: RunRank) -> int:
    """Run this rank to the end and return its exit code.

    Args:
        cfg: the composed configuration, `cluster.workers` set.
        folder: the run folder, for rank 0.
        server: whether rank 0 is a parameter server, and so no worker.
        run_rank: what each rank runs, see `RunRank`.

    Raises:
        InputError: the environment or the interface is wrong.
    """
    try:
        meeting = meet(cfg.cluster.timeout, cfg.cluster.interface)
        if meeting.rank:
            return _follow(cfg, meeting, server=server, run_rank=run_rank)
        assert folder is not None
        return _lead(cfg, folder, meeting, server=server, run_rank=run_rank)
    except PeerLost as lost:
        if folder is not None:
            mark_interrupted(folder, lost.message)
        if launcher.speaks():
            log.error("%s%s; the run did not begin", launcher.prefix(), lost.message)
        return DEAD_PEER


def _lead(cfg: DictConfig, folder: Path, meeting: Meeting, *, server: bool, run_rank: RunRank) -> int:
    """Run rank 0."""

    def say(text: str) -> None:
        log.error("%s; the run stopped, %s", text, resume_hint(folder))

    # Drawn anew at each start: a restart by torchrun meets at the same store.
    name = secrets.token_hex(8)
    rendezvous = meeting.rendezvous(name)
    welcome = {
        "welcome": name,
        "folder": str(folder.absolute()),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        # For ranks that continue a run whose folder they do not see.
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    monitor = Monitor(
        meeting.world,
        meeting.timeout,
        server=server,
        machine=launcher.machine(),
        welcome=welcome,
        break_off=rendezvous.breakable.break_off,
        on_fault=say,
        on_overdue=functools.partial(_end_overdue, folder),
    )
    monitor.watch_signals()
    monitor.start()
    # A rank may come back to the monitor while links are opened, and is not to be taken for one of them.
    rendezvous.breakable.spare(monitor.port)
    # Last: who reads the place connects at once.
    meeting.announce(monitor.port, name)
    code = DEAD_PEER
    try:
        if monitor.wait_for_all():
            code = run_rank(cfg, folder, rendezvous, monitor.find_lost, monitor.mark_step)
        # A server's loss of its last worker has been said; of a collective's broken connection the monitor knows whose.
        if code == DEAD_PEER and not server and monitor.wait_fault() is None:
            say("a rank is lost, and which is not known")
    except RuntimeError as error:
        if not is_peers_fault(error):
            code = UNEXPECTED
            raise
        if monitor.wait_fault() is None:
            say(f"a rank is lost: {reason(error)}")
            mark_interrupted(folder, reason(error), better=True)
    except BaseException as error:
        code = _code_of(error)
        raise
    finally:
        # Whatever happened: without this word the others would take the closed connection for a death.
        monitor.finish(code)
        # Threads that wait for a lost worker leave their transfer: one that is in it when Python ends can abort the
        # process.
        rendezvous.breakable.break_off()
    # A run that came to its end is complete, whatever a rank did after it.
    if monitor.fault is not None and code != 0:
        text, code = monitor.fault
        mark_interrupted(folder, text, better=True)
    return code


def _code_of(error: BaseException) -> int:
    """Return the exit code that an exception leads to, for the ranks that are told of it before this one ends."""
    if isinstance(error, KeyboardInterrupt):
        return signals.exit_code_of(error)
    return WRONG_INPUT if isinstance(error, InputError) else UNEXPECTED


def _end_overdue(folder: Path, text: str, code: int) -> None:
    """End rank 0 although its main thread has not come to an end; the summary says why."""
    mark_interrupted(folder, text, better=True)
    exit_at_once(code)


def _follow(cfg: DictConfig, meeting: Meeting, *, server: bool, run_rank: RunRank) -> int:
    """Run a rank other than 0."""
    client = MonitorClient(
        meeting.rank,
        meeting.timeout,
        name=rank_name(0, server),
        machine=launcher.machine(),
        locate=meeting.locate,
        on_end=lambda end: _end_follower(client, end),
    )
    client.start()
    if waits_for_config(cfg):
        told: Any = OmegaConf.create(client.welcome["config"])
        cfg = told
    code = DEAD_PEER
    try:
        code = run_rank(cfg, None, meeting.rendezvous(client.welcome["welcome"]), list, client.mark_step)
        if code == DEAD_PEER:
            # The monitor knows whose fault it is, and then ends this process. Or rank 0 has ended by itself, maybe with
            # the store that this rank waited at.
            end = client.wait_end()
            code = DEAD_PEER if end is None else _tell_elsewhere(client, end)
    except RuntimeError as error:
        if not is_peers_fault(error):
            code = UNEXPECTED
            raise
        end = client.wait_end()
        if end is None:
            log.error("rank %d has lost a rank: %s", meeting.rank, reason(error))
        code = DEAD_PEER if end is None else _tell_elsewhere(client, end)
    except BaseException as error:
        code = _code_of(error)
        raise
    finally:
        # With the code: from it rank 0 tells a rank that has ended as it should from one that is at fault.
        client.finish(code)
    return code


def _is_released(folder: Path) -> bool:
    """Wait for a dead process's lock to go; return whether it has."""
    deadline = time.monotonic() + LOCK_SECONDS
    # Its connections may be closed before its lock is, and another rank that looks holds it for a moment.
    while is_locked(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def waits_for_config(cfg: DictConfig) -> bool:
    """Return whether this rank has no configuration of its own: it continues a run whose folder rank 0 alone sees."""
    resume = cfg.run.resume
    return isinstance(resume, str) and launcher.rank() > 0 and not expanded(resume, "run.resume").is_dir()


def _tell_elsewhere(client: MonitorClient, end: End) -> int:
    """Return the exit code; on a machine without rank 0, whose terminal has heard nothing yet, one rank says why."""
    # What this rank noticed by itself the client's thread says, in `_end_follower`, on any machine.
    untold = bool(end.text) and not end.first and not client.at_home
    if untold and launcher.speaks() and client.may_tell():
        log.error("%s%s; the run stopped", launcher.prefix(), end.text)
    return end.code


def _end_follower(client: MonitorClient, end: End) -> None:
    """End a rank other than 0 at once: it has nothing to save, and may be in a transfer that never ends."""
    if end.first:
        here, folder = client.at_home, Path(client.welcome["folder"])
        if here and not end.dead:
            # A stuck one that comes back would find its run continued by another.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(client.welcome["pid"], signal.SIGKILL)
        # A dead rank 0 cannot say how the run ended. One that is only out of reach may go on, and its lock tells.
        if (here or end.dead) and folder.is_dir() and _is_released(folder):
            mark_interrupted(folder, end.text)
        # On each machine one rank says it; on rank 0's own that is the next one.
        if launcher.speaks() or (here and os.environ.get("LOCAL_RANK") == "1"):
            hint = f", {resume_hint(folder)}" if folder.is_dir() else ""
            log.error("%s%s; the run stopped%s", launcher.prefix(), end.text, hint)
    else:
        _tell_elsewhere(client, end)
    exit_at_once(end.code)
