"""Sums without spans, beside a timeline that gets the same."""

import random

import numpy as np
import pytest

from runner.run_folder.timeline import Timeline
from runner.run_folder.timeline_totals import TimelineTotals

WORKERS = 5


def told(*timelines: Timeline) -> list[tuple[object, object, object]]:
    return [
        (line.report(40.0) | {"timeline_lines": 0}, line.slowest(40.0), line.staleness_since_last())
        for line in timelines
    ]


def test_single_events_add_up_alike():
    generator, timelines = random.Random(0), (Timeline(WORKERS), TimelineTotals(WORKERS))
    for step in range(60):
        worker, now = generator.randrange(WORKERS - 1), 0.7 * step
        times = sorted(now + generator.random() for _ in range(5))
        for line in timelines:
            line.task(worker, *times[:4])
            line.span(worker, "wait", *times[3:])
            line.staleness(worker, step % 7)
    first, second = told(*timelines)
    assert first == second


@pytest.mark.parametrize("before", [0, 20])
def test_many_pushes_add_up_alike(before: int):
    generator, plain, totals = np.random.default_rng(1), Timeline(WORKERS), TimelineTotals(WORKERS)
    for step in range(before):
        for line in (plain, totals):
            line.task(step % WORKERS, 0.1 * step, 0.1 * step + 0.3, 0.1 * step + 1 / 3, 0.1 * step + 0.7)
    totals.to_vectors()
    for step in range(50):
        workers = generator.permutation(WORKERS)[:3]
        arrivals, handled, begin, end, pushed = 0.8 * step + np.sort(generator.random((5, 3)), 0)
        totals.pushes(workers, arrivals, handled, workers * step)
        totals.tasks(workers, handled, begin, end, pushed)
        for place, worker in enumerate(workers.tolist()):
            plain.span(worker, "wait", arrivals[place], handled[place])
            plain.staleness(worker, worker * step)
            plain.task(worker, handled[place], begin[place], end[place], pushed[place])
    totals.to_lists()
    for line in (plain, totals):
        line.task(2, 40.5, 41.0, 42.0, 43.0)
    first, second = told(plain, totals)
    assert first == second
    assert totals.staleness_mean == pytest.approx(
        sum(int(value) * count for value, count in totals.report(1.0)["staleness"].items()) / 150
    )


def test_steps_of_all_workers_add_up_alike():
    generator, timelines = np.random.default_rng(2), (Timeline(WORKERS), TimelineTotals(WORKERS))
    for step in range(60):
        starts, ends = 0.9 * step + np.sort(generator.random((2, WORKERS)), 0)
        chosen = generator.random(WORKERS) < 0.5
        for line in timelines:
            line.spans("compute", starts, ends)
            line.spans("transfer", ends, ends + 0.1, chosen)
            line.spans("wait", ends, ends + 0.05, ~chosen)
    first, second = told(*timelines)
    assert first == second
    shares = timelines[1].shares(40.0)
    utilizations = [row["utilization"] for row in timelines[0].report(40.0)["workers"]]
    assert shares["compute"] == pytest.approx(sum(utilizations) / WORKERS)
    assert timelines[1].staleness_mean is timelines[1].staleness_max is None
