"""Runs on real processes, recorded, and executed again in one process: the same weights, bit for bit."""

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from injection import Host, Run, host, sockets, until

DATA = ("dataset=synthetic", "dataset.train=480", "dataset.test=50", "run.batch_size=16", "run.epochs=2")
RECORD = (*DATA, "cluster=processes", "cluster.timeout=20")
REPLAY = (*DATA, "cluster=replay")
METHODS = ("asgd", "dc_asgd_c", "dc_asgd_a", "dc_asgd_abs")
LATER = (
    "ad_psgd",
    "async_diloco",
    "dana_dc",
    "dana_slim",
    "dana_zero",
    "delay_adaptive",
    "eamsgd",
    "ef_asgd",
    "gap_aware",
    "ormo",
    "rennala",
    "ringmaster",
    "ringmaster_stops",
    "smega2",
    "ssp",
)
"""Methods that are tried with four workers alone."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc (Linux)")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("host")) as made:
        yield made


@pytest.fixture(scope="module")
def recorded(machine: Host, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of `asgd` with three workers."""
    folder = tmp_path_factory.mktemp("runs") / "recorded"
    run = machine.start(folder, *RECORD, "algorithm=asgd", "model=mlp", "cluster.workers=3")
    assert run.end() == 0
    return run


def replay(machine: Host, run: Run, folder: Path, *overrides: str) -> Run:
    again = machine.start(folder, *REPLAY, f"cluster.trace={run.folder}", *overrides)
    again.end()
    return again


QUICK = {("dc_asgd_a", 4)}


@pytest.mark.parametrize(
    ("method", "workers"),
    [
        pytest.param(method, workers, marks=() if (method, workers) in QUICK else pytest.mark.slow)
        for method in (*METHODS, *LATER)
        for workers in ((2, 4, 8) if method in METHODS else (4,))
    ],
)
def test_every_method_ends_with_the_same_weights(machine: Host, tmp_path: Path, method: str, workers: int):
    # A convolution with batch norm: its statistics are averaged in order of arrival.
    given = (f"algorithm={method}", "model=resnet8", "dataset.shape=[3,8,8]", "dataset.train=160", "run.epochs=1")
    run = machine.start(tmp_path / "run", *RECORD, *given, f"cluster.workers={workers}")
    assert run.end() == 0
    again = replay(machine, run, tmp_path / "again", *given)
    assert again.code == 0
    for key in ("weights_sha256", "buffers_sha256", "updates", "workers", "final_test_error", "final_train_loss"):
        assert again.summary[key] == run.summary[key]
    assert (again.folder / "metrics.jsonl").read_text() == (run.folder / "metrics.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["asgd", "ssgd", "shared_asysvrg", "ddg"])
def test_validation_is_scored_on_processes(machine: Host, tmp_path: Path, method: str):
    given = (f"algorithm={method}", "model=mlp", "cluster.workers=2", "dataset.validation=0.25", "dataset.train=160")
    run = machine.start(tmp_path / "run", *RECORD, *given)
    assert run.end() == 0
    sizes = ("train_samples", "validation_samples", "test_samples")
    assert [run.summary[key] for key in sizes] == [120, 40, 50]
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    errors = [row["validation_error"] for row in rows]
    assert (run.summary["best_validation_error"], run.summary["final_validation_error"]) == (min(errors), errors[-1])
    assert all(0 < row["validation_loss"] < 10 for row in rows)
    if method == "asgd":
        again = replay(machine, run, tmp_path / "again", *given)
        assert (again.folder / "metrics.jsonl").read_text() == (run.folder / "metrics.jsonl").read_text()
    if method == "ssgd":
        again = machine.start(tmp_path / "simulated", *DATA, *given)
        assert again.end() == 0
        keys = ("weights_sha256", "best_validation_error", "best_validation_loss", "test_error_at_best_validation")
        assert {key: again.summary[key] for key in keys} == {key: run.summary[key] for key in keys}


def test_replay_reports_equal_weights(machine: Host, recorded: Run, tmp_path: Path):
    replay(machine, recorded, tmp_path / "again", "algorithm=asgd", "model=mlp")
    line = f"weights: bit for bit those of the recorded run in {recorded.folder}"
    assert line in machine.output.read_text()


def test_other_method_replays_the_same_delays(machine: Host, recorded: Run, tmp_path: Path):
    other = replay(machine, recorded, tmp_path / "other", "algorithm=dc_asgd_a", "model=mlp")
    assert other.code == 0
    assert other.summary["weights_sha256"] != recorded.summary["weights_sha256"]
    assert other.summary["staleness_by_worker"] == recorded.summary["staleness_by_worker"]
    assert other.summary["seconds"] == recorded.summary["seconds"]


def test_replay_can_be_replayed(machine: Host, recorded: Run, tmp_path: Path):
    once = replay(machine, recorded, tmp_path / "once", "algorithm=dc_asgd_a", "model=mlp")
    twice = replay(machine, once, tmp_path / "twice", "algorithm=asgd", "model=mlp")
    assert twice.summary["weights_sha256"] == recorded.summary["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dc_asgd_c", "dana_zero", "dana_slim", "ssp"])
def test_lost_worker_is_lost_again(machine: Host, method: str, tmp_path: Path):
    """Also where the server or the worker keeps something for it, or others would wait for it."""
    given = (f"algorithm={method}", "model=mlp")
    run = machine.start(
        tmp_path / "run", *RECORD, *given, "cluster.workers=3", "cluster.compute.seconds=0.15"
    ).training()
    time.sleep(0.3)
    run.signal("worker 1", signal.SIGKILL)
    assert run.end() == 0
    assert run.summary["workers_lost"] == 1
    again = replay(machine, run, tmp_path / "again", *given)
    assert again.summary["weights_sha256"] == run.summary["weights_sha256"]
    assert again.summary["workers_lost"] == 1


@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_stopped_workers_are_stopped_again(machine: Host, kill: bool, tmp_path: Path):
    """In the middle of an acted gradient, as it pleases the clocks of four processes; one may be lost besides."""
    given = ("algorithm=ringmaster_stops", "algorithm.threshold=2", "model=mlp", "run.eval_every=0.5")
    uneven = ("cluster.workers=4", "cluster.compute.seconds=0.2", "cluster.compute.speeds=[8,2,1,1]")
    run = machine.start(tmp_path / "run", *RECORD, *given, *uneven)
    if kill:
        run.training()
        time.sleep(0.3)
        run.signal("worker 3", signal.SIGKILL)
    assert run.end() == 0
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["stopped"] > 0
    assert run.summary["epochs"] == 2
    assert run.summary["workers_lost"] == kill
    again = replay(machine, run, tmp_path / "again", *given)
    assert again.summary["weights_sha256"] == run.summary["weights_sha256"]
    assert (again.folder / "metrics.jsonl").read_text() == (run.folder / "metrics.jsonl").read_text()
    shares = [json.loads((each.folder / "workers.json").read_text())["workers"] for each in (run, again)]
    for there, here in zip(*shares, strict=True):
        assert here.get("stopped", 0) == pytest.approx(there.get("stopped", 0), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dc_asgd_a", "dana_slim", "rennala", "ssp", "ringmaster_stops"])
def test_continued_run_is_replayed_as_one(machine: Host, method: str, tmp_path: Path):
    """Also where workers keep something, or the server collects, or lets them wait or stop."""
    given = (f"algorithm={method}", "model=mlp", "run.eval_every=0.5")
    given += ("algorithm.threshold=1",) if method == "ringmaster_stops" else ()
    slow = ("cluster.workers=3", "cluster.compute.seconds=0.15")
    run = machine.start(tmp_path / "run", *RECORD, *given, *slow)
    until(lambda: "checkpoint step" in run.log, "a checkpoint")
    run.signal("server", signal.SIGTERM)
    assert run.end() == 143
    assert run.summary["status"] == "interrupted"
    part = replay(machine, run, tmp_path / "part", *given)
    assert part.summary["weights_sha256"] == run.summary["weights_sha256"]
    assert "the trace is of a part of a run" in part.log
    assert machine.start(run.folder, *RECORD, *given, *slow, resume=True).end() == 0
    whole = replay(machine, run, tmp_path / "whole", *given)
    assert whole.summary["weights_sha256"] == run.summary["weights_sha256"]
    assert whole.summary["epochs"] == 2


def test_stopped_replay_goes_on(machine: Host, recorded: Run, tmp_path: Path):
    given = (*REPLAY, f"cluster.trace={recorded.folder}", "algorithm=asgd", "model=mlp", "run.eval_every=0.1")
    again = machine.start(tmp_path / "again", *given)
    assert again.end() == 0
    for path in sorted((again.folder / "checkpoints").glob("*"))[-1:]:
        path.unlink()
    (again.folder / "summary.json").unlink()
    resumed = machine.start(again.folder, *given, resume=True)
    assert resumed.end() == 0
    assert resumed.summary["weights_sha256"] == recorded.summary["weights_sha256"]


def test_simulated_run_can_record(machine: Host, tmp_path: Path):
    given = (*DATA, "algorithm=dc_asgd_a", "model=mlp", "run.eval_every=0.5")
    run = machine.start(tmp_path / "run", *given, "cluster.record=true", "cluster.compute.distribution=gamma")
    assert run.end() == 0
    again = replay(machine, run, tmp_path / "again", *given)
    assert again.summary["weights_sha256"] == run.summary["weights_sha256"]
    assert again.summary["seconds"] == run.summary["seconds"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("algorithm=ssgd",), "algorithm=ssgd: has no parameter server"),
        (("algorithm=asgd", "cluster.workers=4"), "cluster.workers=4: the trace in .* was recorded with 3; allowed: 3"),
        (("algorithm=asgd", "run.batch_size=8"), "run.batch_size=8: .*; allowed: 16"),
        (("algorithm=asgd", "dataset.train=500"), "dataset=synthetic: its training samples are 500, the trace has 480"),
        (("algorithm=asgd", "dataset.noise=2"), "dataset=synthetic: its content"),
    ],
)
def test_trace_of_another_run_is_refused(
    machine: Host, recorded: Run, tmp_path: Path, overrides: tuple[str, ...], line: str
):
    assert replay(machine, recorded, tmp_path / "again", "model=mlp", *overrides).code == 2

    assert re.search(f"dcrun: {line}", machine.output.read_text())


def test_trace_of_other_messages_is_refused(machine: Host, recorded: Run, tmp_path: Path):
    lines = recorded.lines
    lines[5]["worker"], lines[6]["worker"] = lines[6]["worker"], (lines[6]["worker"] + 1) % 3

    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = machine.start(
        tmp_path / "run", *REPLAY, "algorithm=asgd", "model=mlp", f"cluster.trace={tmp_path / 'trace.jsonl'}"
    )
    assert run.end() == 2
    assert "allowed: the trace of such a run, unchanged" in machine.output.read_text()


@pytest.mark.slow
def test_all_sockets_are_on_loopback(machine: Host, tmp_path: Path):
    for method in ("asgd", "ssgd"):
        slow = ("cluster.workers=2", "cluster.compute.seconds=0.1")
        run = machine.start(tmp_path / method, *RECORD, f"algorithm={method}", "model=mlp", *slow).training()
        found = [connection for pid in run.ranks.values() for connection in sockets(pid)]
        assert any(connection.listening for connection in found)
        assert {connection.address for connection in found} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        assert run.end() == 0
