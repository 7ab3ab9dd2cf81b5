"""Delays fitted to traces that were made with known ones."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from runner.cli.compose import composer
from runner.config import schema
from runner.config.errors import InputError
from runner.run_folder.trace import PUSH, RESUMED, STOPPED, Record, Trace
from runner.train import fit
from runner.train.build import build_run
from tests.traces import ABOUT
from tests.trial import compose


def trace(workers: int = 2, rounds: int = 200, pull: int = 400, transfer: float = 0.03, spread: float = 0.0) -> Trace:
    """Worker m computes (m + 1)/10 s, a message takes half of `transfer`, the server 1 ms."""
    about = ABOUT | {"workers": workers, "samples": 10**6, "pull_bytes": pull, "push_bytes": pull}
    about |= {"algorithm": "asgd", "model": "mlp", "dataset": "digits"}
    generator, records = np.random.default_rng(0), []
    for worker in range(workers):
        now = 0.0
        for task in range(rounds):
            compute = float((worker + 1) / 10 * (generator.gamma(1 / spread**2, spread**2) if spread else 1.0))
            now += compute + transfer + 0.001 + 0.002
            records.append(Record(PUSH, worker, 0, now, batch=task, compute=compute, waited=0.002, served=0.001))
    return Trace(Path("trace"), about, records)


def test_fit_finds_the_recorded_delays():
    found = fit.fit([trace()])
    assert found["workers"] == 2
    assert found["compute"] == {"distribution": "constant", "seconds": 0.15, "speeds": [1.5, 0.75]}
    assert found["network"]["latency"] == pytest.approx(0.015, rel=1e-3)
    assert (found["network"]["bandwidth"], found["network"]["server_seconds"]) == (None, 0.001)


def test_what_a_worker_was_let_wait_is_no_transfer():
    found, held = trace(), 0.4
    for number, record in enumerate(found.records):
        found.records[number] = record._replace(time=record.time + held * number, withheld=held)
    assert fit.fit([found])["network"]["latency"] == pytest.approx(0.015, rel=1e-3)


def test_what_was_dropped_is_no_gradient():
    found = trace()
    # Between two of worker 0's pushes it was stopped, after a hundredth of a gradient.
    later = [record._replace(time=record.time + 0.034) for record in found.records[10:200]]
    before = found.records[9]
    stopped = before._replace(kind=STOPPED, time=before.time + 0.034, compute=0.001)
    found.records[10:200] = [stopped, *later]
    assert fit.fit([found]) == fit.fit([trace()])


def test_fit_finds_the_spread():
    found = fit.fit([trace(spread=0.5, rounds=2000)])["compute"]
    assert found["distribution"] == "gamma"
    assert found["cv_task"] == pytest.approx(0.5, rel=0.1)
    # The mean of a worker's gradients is kept as it was.
    assert found["seconds"] / found["speeds"][0] == pytest.approx(0.1, rel=0.05)


def test_two_sizes_tell_latency_from_bandwidth():
    found = fit.fit([trace(transfer=0.02 + 800 / 1e5), trace(pull=4000, transfer=0.02 + 8000 / 1e5)])["network"]
    assert found["latency"] == pytest.approx(0.01, rel=1e-3)
    assert found["bandwidth"] == pytest.approx(1e5, rel=1e-3)


def test_printed_overrides_can_be_pasted(tmp_path: Path):
    recorded = trace(spread=0.3)
    found = fit.fit([recorded])
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text(fit.document(found, [recorded]))
    schema.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    with composer() as composed:
        pasted = composed.one(["cluster=mine", f"hydra.searchpath=['{tmp_path.as_uri()}']"]).cluster
        typed = composed.one(fit.overrides(found)).cluster
    assert pasted == typed
    assert OmegaConf.to_container(pasted.compute)["speeds"] == found["compute"]["speeds"]  # type: ignore[index]


def test_recordings_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="worker 0 has fewer than 2 messages"):
        fit.fit([trace(rounds=1)])
    still = trace()
    with pytest.raises(InputError, match="its times are virtual"):
        fit.fit([Trace(still.path, still.about, [r._replace(served=0.0) for r in still.records])])
    with pytest.raises(InputError, match="is of 3 workers"):
        fit.fit([trace(), trace(workers=3)])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lognormal", {"distribution": "lognormal", "sigma": 0.4}),
        ("uniform", {"distribution": "uniform", "jitter": 0.3}),
        ("constant", {"distribution": "constant"}),
    ],
)
def test_likelihood_chooses_the_distribution(name: str, expected: dict[str, object]):
    draw = np.random.default_rng(1)
    times = {
        "lognormal": draw.lognormal(-0.08, 0.4, 5000),
        "uniform": draw.uniform(0.7, 1.3, 5000),
        "constant": np.full(5000, 1.0),
    }[name]
    found = fit.distribution(times)
    assert found.pop("distribution") == expected.pop("distribution")
    assert found == {key: pytest.approx(value, rel=0.05) for key, value in expected.items()}


def test_round_trips_do_not_span_a_stop():
    still = trace(workers=1, rounds=4)
    first, *rest = still.records
    # An hour between the first message and the second: the run was stopped meanwhile.
    late = [record._replace(time=record.time + 3600) for record in rest]
    stop = Record(RESUMED, -1, 1, 3600.0)
    found = fit.cycles(Trace(still.path, still.about, [first, stop, *late]))
    assert found.transfer == pytest.approx([0.03, 0.03])


def test_short_batch_counts_as_part_of_one():
    still = trace(workers=1, rounds=4)
    about = still.about | {"samples": 3 * still.about["batch_size"] + 1}
    found = fit.cycles(Trace(still.path, about, still.records)).compute[0]
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.1 * about["batch_size"]])


def test_simulation_takes_the_measured_seconds(tmp_path: Path):
    recorded = trace(spread=0.3, rounds=5)
    (tmp_path / "d.csv").write_text(fit.delays_of(recorded))
    cfg = compose("algorithm=asgd", "model=mlp", "dataset.limit_train=40", "run.batch_size=4", "run.epochs=1",
                  "cluster.workers=2", f"cluster.compute.delays={tmp_path / 'd.csv'}")  # fmt: skip
    clock = build_run(cfg).clock()
    for worker in range(2):
        measured = [record.compute for record in recorded.records if record.worker == worker]
        assert [clock.compute_seconds(worker, task) for task in range(5)] == measured


def test_config_with_measured_seconds_can_be_composed(tmp_path: Path):
    recorded = trace(rounds=3)
    place = str(tmp_path / "measured, mine.csv")
    found = fit.fit([recorded], place)
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text(fit.document(found, [recorded]))
    schema.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    with composer() as composed:
        pasted = composed.one(["cluster=mine", f"hydra.searchpath=['{tmp_path.as_uri()}']"]).cluster
        typed = composed.one([shlex.split(text)[0] for text in fit.overrides(found)]).cluster
    assert pasted == typed
    assert pasted.compute.delays == place


def test_recording_without_all_seconds_gives_no_delays():
    still = trace(rounds=3)
    with pytest.raises(InputError, match="its workers compute at barriers too"):
        fit.delays_of(Trace(still.path, {**still.about, "barriers": [0, 4]}, still.records))
    late = [*still.records[:-1], still.records[-1]._replace(compute=0.0)]
    with pytest.raises(
        InputError, match="message 2 of worker 1 was computed during an evaluation, for unknown seconds"
    ):
        fit.delays_of(Trace(still.path, still.about, late))


def test_computing_during_evaluations_counts_in_full():
    still = trace(workers=1, rounds=4)
    cut = [still.records[0], still.records[1]._replace(compute=0.02, took=0.1), *still.records[2:]]
    found = fit.cycles(Trace(still.path, still.about, cut))
    assert found.compute[0] == pytest.approx([0.1] * 4)
    # Of the run's own seconds only those were computing that its clock saw.
    assert found.transfer == pytest.approx([0.03 + 0.08, 0.03, 0.03])
