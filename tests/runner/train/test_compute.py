import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.dc_asgd import DCASGDAdaptive
from algorithms.local_sgd import LocalSGD
from algorithms.shared_asysvrg import SharedAsySVRG
from runner.config.errors import InputError
from runner.simulated.arena import NotShareable
from runner.simulated.compute_pool import ComputePool
from runner.train import build, compute
from tests.compute import use_threads
from tests.trial import compose, equal, rows, run_in, train, when

SMALL = ("model=mlp", "dataset.limit_train=64", "dataset.limit_test=20", "run.batch_size=8", "cluster.workers=3")
THREE_BLOCKS = ("model.widths=[32,32]",)


def processes() -> dict[str, int]:
    """The compute processes of this process, by name."""
    return {p.name: p.pid for p in multiprocessing.active_children() if p.name.startswith("compute process") and p.pid}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are killed by their number (Linux)")
@pytest.mark.parametrize("algorithm", ["dc_asgd_a", pytest.param("fr", marks=pytest.mark.slow)])
def test_killed_with_two_continued_with_one(algorithm: str, tmp_path: Path):
    """Real processes: one dies, which the run names; it goes on with one process to the bits of a run with one."""
    given = (f"algorithm={algorithm}", *SMALL, *THREE_BLOCKS, "run.epochs=60", "run.checkpoint_every=1")
    _, expected = run_in(tmp_path / "whole", *given)
    seen: dict[str, int] = {}

    def kill() -> None:
        seen.update(processes())
        os.kill(seen["compute process 1"], signal.SIGKILL)

    killing = when(lambda: rows(tmp_path / "killed") >= 3, kill)
    code, summary = run_in(tmp_path / "killed", *given, "run.compute_processes=2")
    killing.join()
    assert code == 3
    assert summary["status"] == "interrupted"
    assert summary["error"] == f"compute process 1 (pid {seen['compute process 1']}) was killed by SIGKILL"
    assert sorted(seen) == ["compute process 0", "compute process 1"]
    assert not processes(), "none is left behind"
    assert 3 <= rows(tmp_path / "killed") < 60
    code, summary = run_in(tmp_path / "killed", *given, f"run.resume={tmp_path / 'killed'}")
    assert code == 0
    for key in ("weights_sha256", "buffers_sha256", "updates", "seconds", "final_test_error"):
        assert summary[key] == expected[key]
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")


def metrics(folder: Path) -> str:
    return (folder / "metrics.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "local_sgd", "hogwild", "ddg", "fr", "dni"])
def test_processes_have_the_bits_of_one(algorithm: str, tmp_path: Path):
    given = (f"algorithm={algorithm}", "model=resnet8", *SMALL[1:], "run.epochs=2", "dataset.augment=true")
    _, expected = run_in(tmp_path / "1", *given)
    for count in (2, 3):
        code, summary = run_in(tmp_path / str(count), *given, f"run.compute_processes={count}")
        assert code == 0
        assert (summary["weights_sha256"], summary["buffers_sha256"]) == (
            expected["weights_sha256"],
            expected["buffers_sha256"],
        )
        assert metrics(tmp_path / str(count)) == metrics(tmp_path / "1")
        assert (tmp_path / str(count) / "timeline.jsonl").read_text() == (tmp_path / "1" / "timeline.jsonl").read_text()


def test_traces_are_equal_and_replayed_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Recorded with one and with two: the same trace; replayed with two: the same weights."""
    use_threads(monkeypatch)
    given = ("algorithm=asgd", *SMALL, "run.epochs=2")
    _, first = run_in(tmp_path / "1", *given, "cluster.record=true")
    run_in(tmp_path / "2", *given, "cluster.record=true", "run.compute_processes=2")
    assert (tmp_path / "1" / "trace.jsonl").read_text() == (tmp_path / "2" / "trace.jsonl").read_text()
    replay = ("cluster.kind=replay", f"cluster.trace={tmp_path / '1'}", "run.compute_processes=2")
    code, summary = run_in(tmp_path / "again", *given, *replay)
    assert code == 0
    assert summary["weights_sha256"] == first["weights_sha256"]
    assert metrics(tmp_path / "again") == metrics(tmp_path / "1")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("algorithm=asgd", "run.compute_processes=4"), r"=4: .* cluster.workers=3; allowed: auto, 1 to 3$"),
        (
            ("algorithm=ddg", "cluster.workers=2", "run.compute_processes=2", "run.diagnostics=[sufficient_direction]"),
            r"=2: run.diagnostics=sufficient_direction needs the weights of all modules .*; allowed: 1, auto$",
        ),
        (("algorithm=sgd", "cluster.workers=1", "run.compute_processes=2"), r"=2: .* allowed: auto, 1 to 1$"),
    ],
)
def test_what_cannot_be_is_refused(overrides: tuple[str, ...], says: str):
    """Before anything is written: it is found while the run is built."""
    with pytest.raises(InputError, match=rf"^run.compute_processes{says}"):
        build.build_run(compose(*SMALL, *overrides))


def test_auto_takes_what_pays(monkeypatch: pytest.MonkeyPatch):
    components = build.build_run(compose("algorithm=asgd", *SMALL, "run.compute_processes=auto", "run.epochs=1000"))
    before = components.oracle.replica.weights.clone()
    monkeypatch.setattr(compute, "own_cores", lambda: 8)
    assert compute.process_count(components) == 1, "a gradient of a small network is not worth a message"
    assert torch.equal(components.oracle.replica.weights, before)
    assert not components.oracle.totals.any()
    monkeypatch.setattr(compute, "_shortest_seconds", lambda call: 0.1)
    assert compute.process_count(components) == 3, "no more than there are workers"
    monkeypatch.setattr(compute, "own_cores", lambda: 2)
    assert compute.process_count(components) == 2, "no more than there are cores"
    components.cfg.run.epochs = 1
    assert compute.process_count(components) == 1, "over before the processes were there"
    monkeypatch.setattr(compute, "own_cores", lambda: 1)
    components.cfg.run.epochs = 1000
    assert compute.process_count(components) == 1


@pytest.mark.parametrize(
    ("given", "cores", "count"),
    [
        (("algorithm=bp",), 4, 1),
        (("algorithm=ddg", "run.diagnostics=[sufficient_direction]"), 4, 1),
        (("algorithm=ddg",), 4, 4),
        # One of three would still have two of the four modules.
        (("algorithm=ddg",), 3, 2),
    ],
)
def test_auto_knows_what_modules_wait_for(
    given: tuple[str, ...], cores: int, count: int, monkeypatch: pytest.MonkeyPatch
):
    own = ("model.widths=[32,32,32]", "cluster.workers=4", "run.compute_processes=auto", "run.epochs=1000")
    components = build.build_run(compose(*SMALL, *given, *own))
    components.partition.work_shares = [0.25] * 4
    monkeypatch.setattr(compute, "own_cores", lambda: cores)
    monkeypatch.setattr(compute, "_shortest_seconds", lambda call: 0.1)
    assert compute.process_count(components) == count
    monkeypatch.setattr(compute, "_shortest_seconds", lambda call: 0.03)
    assert compute.process_count(components) == 1, "it is handed over in eight calls"
    expected = 1 if given == ("algorithm=bp",) else 3
    assert compute.speedup(components, 4) == pytest.approx(expected), "one batch goes forward at a time"


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "true", "many"])
def test_what_is_no_number_is_refused(value: str):
    with pytest.raises(InputError, match=r"^run.compute_processes=.*: is not a number .*; allowed: auto, integers"):
        compose("algorithm=asgd", f"run.compute_processes={value}")


def test_real_processes_have_no_use_for_it():
    with pytest.raises(InputError, match=r"^run.compute_processes=2: would do nothing: .*; allowed: auto, 1; with"):
        compose("algorithm=asgd", "cluster=processes", "run.compute_processes=2")


ANEW = pytest.mark.parametrize(
    ("algorithm", "kind", "call", "name"),
    [
        ("local_sgd", LocalSGD, "apply", "w"),
        ("dc_asgd_a", DCASGDAdaptive, "push", "bak"),
        ("shared_asysvrg", SharedAsySVRG, "snapshot", "w_tilde"),
    ],
)
"""A method of each topology, and a call of it after which a tensor is to be another one than before."""


def make_anew(monkeypatch: pytest.MonkeyPatch, kind: Any, call: str, name: str) -> None:
    """Let a method make a tensor anew where it wrote to it in place."""
    original = getattr(kind, call)

    def anew(self: Any, *given: Any, **named: Any) -> Any:
        result = original(self, *given, **named)
        setattr(self, name, getattr(self, name).clone())
        return result

    monkeypatch.setattr(kind, call, anew)


@ANEW
def test_auto_computes_here_what_cannot_be_shared(
    algorithm: str, kind: Any, call: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is found in mid-run, and the run goes on to the bits of one process."""
    use_threads(monkeypatch)
    given = (f"algorithm={algorithm}", *SMALL, "run.epochs=3")
    given += ("algorithm.inner=8",) if algorithm == "shared_asysvrg" else ()
    expected = train(*given, folder=tmp_path)
    make_anew(monkeypatch, kind, call, name)
    asked: list[ComputePool] = []
    monkeypatch.setattr(ComputePool, "close", lambda pool, close=ComputePool.close: (asked.append(pool), close(pool)))
    monkeypatch.setattr(compute, "process_count", lambda components: 2)
    run = train(*given, "run.compute_processes=auto", folder=tmp_path)
    assert len(asked) == 1, "compute processes began it, and were ended"
    assert run.sha256 == expected.sha256
    assert equal(run.state, expected.state)
    assert run.notes.rows == expected.notes.rows


@ANEW
def test_asked_processes_that_cannot_share_are_refused(
    algorithm: str, kind: Any, call: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    use_threads(monkeypatch)
    make_anew(monkeypatch, kind, call, name)
    given = (f"algorithm={algorithm}", *SMALL, "run.epochs=3", "run.compute_processes=2")
    given += ("algorithm.inner=8",) if algorithm == "shared_asysvrg" else ()
    with pytest.raises(
        NotShareable, match=r"^run.compute_processes: \w+ keeps|^run.compute_processes: \w+'s state .*anew"
    ):
        train(*given, folder=tmp_path)


def test_auto_tries_a_local_step_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a step makes anew is lost between processes, and could only be found when it is too late."""
    given = ("algorithm=local_sgd", "algorithm.momentum=0.9", *SMALL, "run.epochs=3")
    components = build.build_run(compose(*given))
    before = components.oracle.replica.weights.clone()
    assert compute.steps_in_place(components)
    expected = train(*given, folder=tmp_path)
    make_anew(monkeypatch, LocalSGD, "local", "v")
    assert not compute.steps_in_place(components)
    assert torch.equal(components.oracle.replica.weights, before)
    assert not components.oracle.totals.any()
    monkeypatch.setattr(compute, "process_count", lambda components: 2)
    monkeypatch.setattr(ComputePool, "__init__", lambda *given, **named: pytest.fail("no processes are made"))
    assert train(*given, "run.compute_processes=auto", folder=tmp_path).sha256 == expected.sha256
