"""Spawned ranks that run next to nothing: how they end, and what their supervisor can read."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from runner.config.errors import InputError
from runner.processes.child import DEAD_PEER, FindLost, child_main
from runner.processes.heartbeat import Heartbeats
from runner.processes.rendezvous import Rendezvous

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["runner.processes.child"])
WORLD = 2
FOUND = [(1, "worker 1 died"), (0, "worker 0 died")]

Report = Callable[[int], None]


def returns_its_number(cfg: DictConfig, folder: Path | None, at: Rendezvous, find: FindLost, report: Report) -> int:
    assert (at.world, at.local, at.timeout) == (WORLD, True, cfg.cluster.timeout)
    assert (folder is None) == (at.rank != 0), "rank 0 alone gets the run folder"
    report(40 + at.rank)
    return 10 + at.rank


def loses_its_peer(cfg: DictConfig, folder: Path | None, at: Rendezvous, find: FindLost, report: Report) -> int:
    raise RuntimeError("[/gloo/transport/tcp/pair.cc:534] Connection closed by peer")


def has_a_bug(cfg: DictConfig, folder: Path | None, at: Rendezvous, find: FindLost, report: Report) -> int:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def refuses(cfg: DictConfig, folder: Path | None, at: Rendezvous, find: FindLost, report: Report) -> int:
    raise InputError("cluster.workers=0: is none; allowed: from 1")


def asks_who_is_lost(cfg: DictConfig, folder: Path | None, at: Rendezvous, find: FindLost, report: Report) -> int:
    found = find()
    assert find() == [], "each is told once"
    return 50 if found == FOUND else 51 if not found else 52


def waits(cfg: DictConfig, folder: Path | None, at: Rendezvous, find: FindLost, report: Report) -> int:
    time.sleep(60)
    return 0


def started(folder: Path, run_rank: Any, rank: int, pipe: Any = None) -> tuple[Any, Heartbeats]:
    heartbeats = Heartbeats(CONTEXT, WORLD, 2.0)
    plain = {"cluster": {"timeout": 2.0, "interface": None}}
    args = (rank, WORLD, str(folder / "store"), plain, folder, run_rank, heartbeats, pipe)
    process = CONTEXT.Process(target=child_main, args=args)
    process.start()
    return process, heartbeats


@pytest.mark.parametrize(
    ("run_rank", "rank", "code"),
    [
        (returns_its_number, 0, 10),
        (returns_its_number, 1, 11),
        (loses_its_peer, 0, 1),
        (loses_its_peer, 1, DEAD_PEER),
        (has_a_bug, 1, 1),
        (refuses, 1, 2),
    ],
)
def test_exit_codes_say_how_it_ended(tmp_path: Path, run_rank: Any, rank: int, code: int):
    process, heartbeats = started(tmp_path, run_rank, rank)
    process.join(60)
    assert process.exitcode == code
    assert heartbeats.finished(rank)
    assert not heartbeats.finished(1 - rank)
    assert heartbeats.last_step(rank)[0] == (40 + rank if run_rank is returns_its_number else 0)
    assert not heartbeats.joined


@pytest.mark.parametrize(("piped", "code"), [(True, 50), (False, 51)])
def test_asking_for_lost_workers_marks_all_joined(tmp_path: Path, piped: bool, code: int):
    theirs, ours = CONTEXT.Pipe(duplex=False)
    for found in FOUND:
        ours.send(found)
    process, heartbeats = started(tmp_path, asks_who_is_lost, 0, theirs if piped else None)
    process.join(60)
    assert process.exitcode == code
    assert heartbeats.joined


def test_a_rank_beats_while_it_runs(tmp_path: Path):
    process, heartbeats = started(tmp_path, waits, 1)
    try:
        deadline = time.monotonic() + 60
        while not heartbeats._beats[1] and time.monotonic() < deadline:
            time.sleep(0.01)
        first = heartbeats._beats[1]
        assert first
        time.sleep(10 * heartbeats.interval)
        assert heartbeats._beats[1] - first > 5 * heartbeats.interval
        assert not heartbeats.finished(1)
    finally:
        process.kill()
        process.join(60)
