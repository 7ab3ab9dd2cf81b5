"""Random schedules on a simulated parameter server: workers push in any order, are lost, begin anew."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.base import Layout, Round
from runner.config.errors import InputError
from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.loop.clock import Clock
from runner.loop.train_control import TrainControl
from runner.run_folder.fingerprint import weights_sha256
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Timeline
from runner.run_folder.trace import LOST, PUSH, RESUMED, STOPPED, Trace
from runner.simulated.events import ClockEvents, Event, TraceEvents
from runner.simulated.server import SimulatedServer
from runner.train import build
from tests.trial import Notes, compose

METHODS = ("asgd", "dc_asgd_c", "dc_asgd_a", "dc_asgd_abs", "eamsgd")


class RandomEvents:
    """Any schedule that could happen: `draw` chooses among who computes, and who is lost or when all begin anew."""

    def __init__(self, draw: random.Random, workers: int, lossy: bool) -> None:
        self.draw = draw
        self.workers = workers
        self.busy: list[int] = []
        self.stopping = set[int]()
        self.alive = set(range(workers))
        self.lossy = lossy
        self.clock = itertools.count(1)

    def begin(self) -> float:
        return 0.0

    def pulled(self, worker: int, load: float, now: float, gradients: float) -> None:
        self.busy.append(worker)

    def recall(self, worker: int, now: float) -> bool:
        # Some have pushed by then.
        if self.draw.random() < 0.7:
            self.stopping.add(worker)
        return worker in self.stopping

    @property
    def over(self) -> bool:
        return not self.busy

    def next(self) -> Event:
        time = float(next(self.clock))
        if self.lossy and self.draw.random() < 0.1:
            if self.draw.random() < 0.3:
                self.busy.clear()
                self.stopping.clear()
                self.alive = set(range(self.workers))
                return Event(RESUMED, -1, time)
            if len(self.alive) > 1:
                worker = self.draw.choice(sorted(self.alive))
                self.alive.discard(worker)
                self.stopping.discard(worker)
                if worker in self.busy:
                    self.busy.remove(worker)
                return Event(LOST, worker, time)
        worker = self.draw.choice(self.busy)
        self.busy.remove(worker)
        if worker in self.stopping:
            self.stopping.remove(worker)
            return Event(STOPPED, worker, time)
        return Event(PUSH, worker, time)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def execute(
    components: build.RunComponents, folder: Path, events: Any, timeline: Timeline, recorder: Recorder | None
) -> Any:
    torch.manual_seed(0)
    run = components.cfg.run
    notes = Notes()
    control = TrainControl(
        samples=len(components.dataset.train),
        epochs=run.epochs,
        eval_every=run.eval_every,
        checkpoint_every=100.0,
        schedule=components.schedule,
        evaluator=components.evaluator(),
        logger=notes,
        folder=folder,
    )
    server: Any = SimulatedServer(
        components.method,  # type: ignore[arg-type]
        workers=components.workers,
        oracle=components.oracle,
        batches=components.batches,
        events=events,
        control=control,
        timeline=timeline,
        recorder=recorder,
    )
    server.run()
    sha = weights_sha256(components.oracle.replica.named_weights(server.weights()))
    return sha, notes.rows, server


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 6),
    method=st.sampled_from(METHODS),
    lossy=st.booleans(),
    epochs=st.sampled_from([0.5, 1, 2]),
)
def test_a_replay_gives_the_bits_back(
    tmp_path_factory: Any, seed: int, workers: int, method: str, lossy: bool, epochs: float
):
    folder = tmp_path_factory.mktemp("schedule")
    overrides = (
        f"algorithm={method}",
        "model=linear",
        "dataset.limit_train=100",
        "dataset.limit_test=20",
        "run.batch_size=8",
        f"run.epochs={epochs}",
        f"cluster.workers={workers}",
        *(["algorithm.tau=3"] if method == "eamsgd" else []),
    )
    components = build.build_run(compose(*overrides))
    timeline = Timeline(workers)
    events = RandomEvents(random.Random(seed), workers, lossy)
    sha, rows, server = execute(components, folder, events, timeline, Recorder(folder, components.trace_facts()))
    trace = Trace.read(str(folder))
    pushes = [record for record in trace.records if record.kind == PUSH]

    # Every sample is used once in each epoch.
    assert sum(record.steps for record in pushes) == trace.batches == len(components.batches)
    if method != "eamsgd":
        assert sorted(record.batch for record in pushes) == list(range(len(components.batches)))
    asked = sum(len(components.batches.batch(number).ids) for number in range(len(components.batches)))
    assert server.control.samples_seen == asked

    # The staleness that was noted is the one that the order of the messages makes.
    pulled, staleness = [0] * workers, []
    for record in trace.records:
        if record.kind == PUSH:
            assert record.version == len(staleness)
            assert record.pulled == pulled[record.worker]
            staleness.append(record.version - record.pulled)
            pulled[record.worker] = len(staleness)
        elif record.kind == RESUMED:
            pulled = [len(staleness)] * workers
        else:  # who was idle takes the batch, and pulls now
            break
    else:
        histogram = timeline.report(1.0)["staleness"]
        assert histogram == {str(value): staleness.count(value) for value in sorted(set(staleness))}

    again = build.build_run(compose(*overrides))
    replayed = Timeline(workers)
    same = TraceEvents(trace.records, replayed, workers=workers)
    sha_again, rows_again, server_again = execute(again, folder, same, replayed, None)
    assert sha_again == sha
    assert rows_again == rows
    assert server_again.workers_lost == server.workers_lost
    assert replayed.report(1.0)["staleness"] == timeline.report(1.0)["staleness"]


DECIDE = {"ssp": "algorithm.slack=1", "ringmaster_stops": "algorithm.threshold=2"}
"""Methods that decide who waits or stops, and a bound that workers often meet."""


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), method=st.sampled_from(sorted(DECIDE)), lossy=st.booleans())
def test_who_waited_or_stopped_does_so_again(tmp_path_factory: Any, seed: int, method: str, lossy: bool):
    folder = tmp_path_factory.mktemp("schedule")
    size = ("model=linear", "dataset.limit_train=100", "dataset.limit_test=20", "run.batch_size=8", "run.epochs=2")
    overrides = (f"algorithm={method}", DECIDE[method], *size, "cluster.workers=4")
    components, timeline = build.build_run(compose(*overrides)), Timeline(4)
    events = RandomEvents(random.Random(seed), 4, lossy)
    sha, rows, _ = execute(components, folder, events, timeline, Recorder(folder, components.trace_facts()))
    trace = Trace.read(str(folder))
    pushed = [record.batch for record in trace.records if record.kind == PUSH]
    assert sorted(pushed) == list(range(len(components.batches))), "every batch counts once"
    stops = sum(record.kind == STOPPED for record in trace.records)
    assert rows[-1].get("stopped", 0) == stops
    assert stops > 0 or method == "ssp"
    replayed, again = Timeline(4), build.build_run(compose(*overrides))
    same = TraceEvents(trace.records, replayed, workers=4)
    sha_again, rows_again, _ = execute(again, folder, same, replayed, None)
    assert (sha_again, rows_again) == (sha, rows)
    other = build.build_run(compose("algorithm=asgd", *overrides[2:]))
    if method == "ringmaster_stops":
        # Stops are part of the delays, which another method can replay.
        timeline = Timeline(4)
        execute(other, folder, TraceEvents(trace.records, timeline, workers=4), timeline, None)
        assert timeline.report(1.0)["staleness"] != {}


@pytest.mark.parametrize("field", ["pulled", "version", "batch", "steps"])
def test_other_schedules_are_refused(field: str, tmp_path: Path):
    given = ("algorithm=asgd", "model=linear", "dataset.limit_train=64", "run.batch_size=8", "cluster.workers=3")
    components = build.build_run(compose(*given, "run.epochs=1"))
    events, recorder = RandomEvents(random.Random(0), 3, False), Recorder(tmp_path, components.trace_facts())
    execute(components, tmp_path, events, Timeline(3), recorder)
    records = Trace.read(str(tmp_path)).records
    place = next(number for number, record in enumerate(records) if record.pulled > 0)
    records[place] = records[place]._replace(**{field: getattr(records[place], field) - 1})
    timeline, again = Timeline(3), build.build_run(compose(*given, "run.epochs=1"))
    with pytest.raises(InputError, match=r"cluster\.trace: worker \d's push after update \d was .*, here it is"):
        execute(again, tmp_path, TraceEvents(records, timeline, workers=3), timeline, None)


def on_a_clock(**compute: Any) -> tuple[ClockEvents, Clock]:
    clock = Clock(ComputeConfig(**compute), StragglersConfig(), NetworkConfig(), workers=2, seed=0)
    return ClockEvents(clock, Timeline(2), layout=Layout({"w": 1}, {"g": 1}), workers=2), clock


def test_tasks_take_their_own_draws():
    events, clock = on_a_clock(distribution="lognormal", seconds=1.0)
    for task in range(3):
        for worker in (0, 1):
            events.pulled(worker, [1.0], 10.0 * task, 1.0)
        ends = {event.worker: event.time for event in (events.next(), events.next())}
        assert ends == {worker: 10.0 * task + clock.compute_seconds(worker, task) for worker in (0, 1)}


def test_rounds_share_a_barriers_gradients():
    events, _ = on_a_clock(distribution="constant", seconds=4.0)
    answered = Round({"w": 1}, {"g": 1})
    # Two gradients a sample in all: one in each round that is answered.
    assert events.meet([answered, Round({"g": 1}, {}), answered], [1.0, 0.5], 2.0) == 8.0


def test_who_stops_brings_no_result():
    """Compute processes begin what will be pushed first, and never what will not."""
    clock = Clock(ComputeConfig(distribution="constant"), StragglersConfig(), NetworkConfig(), workers=3, seed=0)
    events = ClockEvents(clock, Timeline(3), layout=Layout({"w": 1}, {"g": 1}), workers=3, stops=True)
    for worker in (0, 1, 2):
        events.pulled(worker, [1.0], 0.1 * worker, 1.0)
    assert list(events.order()) == [0, 1, 2]
    assert events.recall(1, 0.5)
    assert list(events.order()) == [0, 2]
    assert events.next() == Event(STOPPED, 1, 0.5)
    assert events.nbytes == 3 * 8 - 4
    assert not events.recall(0, 1.5), "it has pushed by then"
    assert events.next() == Event(PUSH, 0, 1.0)
