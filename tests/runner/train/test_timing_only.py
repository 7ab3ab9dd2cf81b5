"""The clock alone beside real simulated runs of the same configuration: the same seconds, to the bit."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from runner.config.errors import InputError
from runner.train import build
from runner.train.dispatch import dispatch
from runner.train.executors import topology_of
from runner.train.timing_only import drive
from tests.trial import Notes, Trial, compose, interrupt, rows, run_in, when

UNEVEN = (
    *("cluster.network.latency=0.01", "cluster.network.bandwidth=5e5", "cluster.network.server_seconds=0.02"),
    *("cluster.stragglers.probability=0.2", "cluster.compute.distribution=gamma", "seed=3"),
    "run.eval_every=0.4",
)
"""A cluster in which everything takes time, and no two workers are alike."""
TINY = ("dataset.limit_train=120", "dataset.limit_test=20", "model=mlp", "run.batch_size=7", "run.epochs=2.5")
CONVEX = (
    *(
        "model=ridge",
        "dataset=synthetic",
        "dataset.shape=[6]",
        "dataset.classes=2",
        "dataset.train=90",
        "dataset.test=9",
    ),
    *("run.batch_size=4", "run.epochs=2", "schedule.lr=0.0001"),
)

OFTEN = ("algorithm.inner=6", "run.epochs=7", "run.eval_every=0.01")
"""A row after every update, also where a barrier follows it."""


def clock_alone(*overrides: str) -> tuple[Any, list[dict[str, Any]]]:
    components = build.build_run(compose(*overrides, "run.timing_only=true"))
    run, writer = topology_of(type(components.method)).time(components), Notes()
    drive(run, components.cfg.run.eval_every, writer, lambda: False)
    return run, writer.rows


def clock_of(executor: Any) -> Any:
    return executor.events if hasattr(executor, "events") else executor.times


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=dc_asgd_a", *TINY),
        ("algorithm=easgd", "algorithm.tau=4", *TINY),
        pytest.param(("algorithm=asysvrg", "model=logistic", *CONVEX[1:], *OFTEN), marks=pytest.mark.slow),
        ("algorithm=dasgd", "algorithm.tau=3", "algorithm.delay=2", *TINY),
        pytest.param(("algorithm=dc_ssgd", *TINY), marks=pytest.mark.slow),
        ("algorithm=d_psgd", *TINY),
        pytest.param(("algorithm=d_psgd", "algorithm.order=step_first", *TINY), marks=pytest.mark.slow),
        pytest.param(("algorithm=cocoa_plus", *CONVEX), marks=pytest.mark.slow),
        pytest.param(("algorithm=dis_dfsdca", "algorithm.inner=10", *CONVEX), marks=pytest.mark.slow),
        ("algorithm=shared_asysvrg", "model=logistic", *CONVEX[1:], *OFTEN),
        pytest.param(("algorithm=hogwild", *TINY), marks=pytest.mark.slow),
        ("algorithm=ddg", "cluster.workers=3", *TINY, "model=fcn5"),
        pytest.param(("algorithm=dni", "cluster.workers=2", *TINY), marks=pytest.mark.slow),
        ("algorithm=pipedream_2bw", "cluster.workers=3", *TINY, "model=fcn5"),
    ],
    ids=lambda overrides: str(overrides[0]).removeprefix("algorithm="),
)
def test_clock_alone_is_that_of_the_run(tmp_path: Path, overrides: tuple[str, ...]):
    trial = Trial(*UNEVEN, *overrides, folder=tmp_path).run()
    timed, own_rows = clock_alone(*UNEVEN, *overrides)
    control, seconds = trial.control, trial.control.seconds
    assert (timed.seconds, timed.updates, timed.samples_seen) == (seconds, control.updates, control.samples_seen)
    # What a run counts where it hands messages on is what its clock says.
    assert timed.nbytes > 0
    assert timed.nbytes == clock_of(trial.executor).nbytes == trial.executor.bytes_sent
    assert trial.notes.rows[-1]["bytes_sent"] == timed.nbytes
    own, real = timed.timeline.report(seconds), trial.executor.timeline.report(seconds)
    assert own.pop("timeline_lines") == 0 < real.pop("timeline_lines")
    assert own == real
    assert timed.timeline.slowest(seconds) == trial.executor.timeline.slowest(seconds)
    # All that a real row has and the clock knows, at every evaluation.
    assert len(own_rows) == len(trial.notes.rows)
    for row, expected in zip(own_rows, trial.notes.rows, strict=True):
        common = {key for key in expected if row.get(key) is not None}
        assert len(common) >= 6
        assert {key: row[key] for key in common} == {key: expected[key] for key in common}


EVEN = ("cluster.compute.distribution=constant", "cluster.compute.seconds=2.0", "run.timing_only=true")
"""A cluster of equal workers, whose times the formulas of the papers say."""
LINEAR = ("model=linear", "dataset.limit_train=1200", "dataset.limit_test=20", "run.batch_size=5")
WEIGHTS = 650
"""Of the linear model on 64 pixels and 10 classes."""


def seconds_of(*overrides: str) -> Any:
    return clock_alone(*EVEN, *LINEAR, *overrides)[0]


@pytest.mark.parametrize("workers", [1, 5, 40, 240])
def test_uniform_cluster_has_staleness_of_all_others(workers: int):
    run = seconds_of("algorithm=asgd", f"cluster.workers={workers}", "run.epochs=20")
    histogram = run.timeline.report(run.seconds)["staleness"]
    # The first round finds the weights of the start: its pushes are 0, 1, ... M - 1 late.
    assert histogram.pop(str(workers - 1)) == 4800 - (workers - 1)
    assert histogram == {str(late): 1 for late in range(workers - 1)}
    assert run.seconds == 2.0 * 4800 / workers


@pytest.mark.parametrize("workers", [2, 8, 240])
def test_ring_takes_its_share_of_the_bytes(workers: int):
    given = ("algorithm=ssgd", f"cluster.workers={workers}", "run.epochs=4", "cluster.network.bandwidth=1e4")
    run = seconds_of(*given)
    ring = 2 * (workers - 1) / workers * 4 * WEIGHTS / 1e4
    assert run.seconds == pytest.approx(run.updates * (2.0 + ring))
    assert run.nbytes == run.updates * 2 * (workers - 1) * 4 * WEIGHTS
    assert run.timeline.shares(run.seconds)["transfer"] == pytest.approx(ring / (2.0 + ring))


@pytest.mark.parametrize("delay", [0, 2, *(pytest.param(delay, marks=pytest.mark.slow) for delay in (1, 3))])
@pytest.mark.parametrize("share", [2.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.5, 1.0))])
def test_delay_hides_what_equation_3_3_says(delay: int, share: float):
    """τ steps take τ t_p + max(0, t_c − d t_p), where t_c = m n_p / BW (DaSGD, section 3.3)."""
    t_p, tau, workers = 2.0, 4, 8
    bandwidth = workers * 4 * WEIGHTS / (share * t_p)
    run = seconds_of(
        *("algorithm=dasgd", f"algorithm.tau={tau}", f"algorithm.delay={delay}", f"cluster.workers={workers}"),
        *("cluster.network.allreduce=linear", f"cluster.network.bandwidth={bandwidth}", "run.epochs=8"),
    )
    periods = run.updates // tau
    # The last combination is merged only if its delay ends before the run does.
    merged = periods if delay == 0 else periods - 1
    assert run.updates == periods * tau
    assert run.seconds == pytest.approx(periods * tau * t_p + merged * max(0.0, share * t_p - delay * t_p))


@pytest.mark.parametrize("modules", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_pipelines_take_table_3_times(modules: int):
    """With equal modules T_F + T_B locked and T_F + T_B/K decoupled; T_F is a third of a gradient's seconds."""
    given = (
        *EVEN,
        "dataset.limit_train=100",
        "model=fcn5",
        f"cluster.workers={modules}",
        "run.epochs=2",
        "run.batch_size=10",
    )
    found = {}
    for algorithm in ("bp", "ddg", "fr"):
        components = build.build_run(compose(*given, f"algorithm={algorithm}", f"cluster.workers={modules}"))
        components.partition.work_shares = [1 / modules] * modules
        run = topology_of(type(components.method)).time(components)
        run.advance(9.0, 10_000)
        found[algorithm] = run.seconds / run.updates
    assert found["bp"] == pytest.approx(2.0)
    assert found["ddg"] == pytest.approx(2.0 * (1 / 3 + 2 / 3 / modules))
    # Features replay: another forward pass of the module, ours to count.
    assert found["fr"] == pytest.approx(2.0 * (1 / 3 + 1 / modules))


def test_run_folder_tells_of_the_clock_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    overrides = ("algorithm=asgd", *LINEAR, "run.timing_only=true", "cluster.workers=30", "run.epochs=2")
    code, summary = run_in(tmp_path / "run", *overrides, "cluster.network.server_seconds=0.1")
    assert (code, summary["status"], summary["timing_only"], summary["clock"]) == (0, "completed", True, "virtual")
    assert summary["updates"] == summary["events"] == 480
    assert summary["virtual_samples_per_second"] == pytest.approx(2400 / summary["seconds"])
    assert summary["epoch_seconds"] == pytest.approx(summary["seconds"] / 2)
    assert summary["bytes_sent"] == 480 * 2 * 4 * WEIGHTS
    assert sum(summary[f"{kind}_share"] for kind in ("computing", "transferring", "waiting")) <= 1.0
    assert [summary[key] for key in ("weights_sha256", "best_test_error", "final_train_loss")] == [None] * 3
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"summary.json", "metrics.jsonl", "timeline.jsonl", "workers.json"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in lines] == [1.0, 2.0]
    assert lines[-1]["train_loss"] is None
    workers = json.loads((tmp_path / "run" / "workers.json").read_text())
    assert sum(workers["staleness"].values()) == 480
    printed = capsys.readouterr().out
    assert "throughput" in printed and "test error" not in printed


def test_few_gradients_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run_in(tmp_path / "run", "algorithm=asgd", *LINEAR, "run.timing_only=true", "cluster.workers=3000", "run.epochs=1")
    assert "3000 workers make 240 gradients in all, fewer than 10 each; run.epochs=125 would" in caplog.text


def test_signal_ends_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("runner.train.timing_only.AT_ONCE", 100)
    watcher = when(lambda: rows(tmp_path / "run") > 1, lambda: interrupt(signal.SIGTERM))
    given = ("algorithm=asgd", *LINEAR, "run.timing_only=true", "run.epochs=1e6")
    code, summary = run_in(tmp_path / "run", *given)
    watcher.join()
    assert (code, summary["status"]) == (143, "interrupted")


def test_ended_clock_is_not_resumed(tmp_path: Path):
    given = ("algorithm=asgd", *LINEAR, "run.timing_only=true", "run.epochs=1")
    run_in(tmp_path / "run", *given)
    before = (tmp_path / "run" / "summary.json").read_bytes()
    cfg = compose(*given)
    cfg.run.resume = str(tmp_path / "run")
    with pytest.raises(InputError, match=r"run\.resume=.*: the clock alone leaves no checkpoint.*allowed: null"):
        dispatch(cfg, tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_who_waits_is_not_known_without_pushes():
    components = build.build_run(compose("algorithm=ssp", "run.timing_only=true", "run.epochs=1"))
    with pytest.raises(
        InputError, match=r"run\.timing_only=true: who waits or is stopped .* algorithm=ssp .*; allowed: false"
    ):
        topology_of(type(components.method)).time(components)
