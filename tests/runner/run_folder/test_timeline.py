import json
import math

import pytest

import runner.run_folder.timeline
from runner.run_folder.console import slowest_line
from runner.run_folder.timeline import Timeline


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "timeline.jsonl").read_text().splitlines()]


def busy(timeline: Timeline, rounds: int, first: int = 0) -> None:
    """Each round of 4 s: worker 0 computes for 3 s and waits for 1 s, worker 1 computes 1 s, sends 1 s and pushes."""
    for number in range(first, first + rounds):
        start = 4.0 * number
        timeline.span(0, "compute", start, start + 3.0)
        timeline.span(0, "wait", start + 3.0, start + 4.0)
        timeline.span(1, "compute", start, start + 1.0)
        timeline.span(1, "transfer", start + 1.0, start + 2.0)
        timeline.staleness(1, number % 3)


def test_report_by_hand():
    timeline = Timeline(2)
    busy(timeline, 5)
    report = timeline.report(20.0)
    assert report["workers"] == [
        {"worker": 0, "utilization": 0.75, "transferring": 0.0, "waiting": 0.25, "gradients": 5}
        | {"staleness_mean": None, "staleness_max": None},
        {"worker": 1, "utilization": 0.25, "transferring": 0.25, "waiting": 0.0, "gradients": 5}
        | {"staleness_mean": 4 / 5, "staleness_max": 2},
    ]
    assert report["staleness"] == {"0": 2, "1": 2, "2": 1}
    assert (report["seconds"], report["timeline_lines"], report["timeline_dropped"]) == (20.0, 20, 0)


def test_spans_beyond_the_end_are_cut():
    timeline = Timeline(1)
    timeline.span(0, "compute", 0.0, 6.0)
    timeline.span(0, "compute", 6.0, 14.0)
    timeline.span(0, "transfer", 14.0, 15.0)
    (row,) = timeline.report(10.0)["workers"]
    assert (row["utilization"], row["transferring"]) == (1.0, 0.0)
    assert timeline.report(0.0)["workers"][0]["utilization"] == 0.0


def test_round_trips_travel_half_each_way(tmp_path):
    timeline = Timeline(1)
    # Away for 10 s, of which it computed 4; the push then lay at the server for 2 s.
    assert timeline.round_trip(0, 1.0, 11.0, 13.0, 4.0) == 4.0
    # The run's clock stood while it computed for 9 s: no more went by than between the two.
    assert timeline.round_trip(0, 13.0, 15.0, 15.0, 9.0) == 2.0
    # It arrived before the clock went on.
    assert timeline.round_trip(0, 15.0, 14.0, 16.0, 1.0) == 0.0
    timeline.flush(tmp_path)
    spans = [(row["what"], row["start"], row["end"]) for row in rows(tmp_path)]
    assert spans[:4] == [("transfer", 1, 4), ("compute", 4, 8), ("transfer", 8, 11), ("wait", 11, 13)]
    assert spans[4:8] == [("transfer", 13, 13), ("compute", 13, 15), ("transfer", 15, 15), ("wait", 15, 15)]
    assert spans[11] == ("wait", 15, 16)


def test_window_is_since_the_last_call():
    timeline = Timeline(2)
    assert timeline.staleness_since_last() == (0.0, 0)
    for value in (1, 2, 6):
        timeline.staleness(0, value)
    assert timeline.staleness_since_last() == (3.0, 6)
    timeline.staleness(1, 1)
    assert timeline.staleness_since_last() == (1.0, 1)
    assert timeline.staleness_since_last() == (0.0, 0)


def test_timeline_has_every_span_once_and_in_order(tmp_path):
    timeline = Timeline(2)
    busy(timeline, 2)
    timeline.flush(tmp_path)
    busy(timeline, 1, first=2)
    timeline.flush(tmp_path)
    timeline.flush(tmp_path)
    assert len(rows(tmp_path)) == 12
    assert rows(tmp_path)[-1] == {"worker": 1, "what": "transfer", "start": 9.0, "end": 10.0}


def test_a_new_run_starts_a_new_timeline(tmp_path):
    (tmp_path / "timeline.jsonl").write_text('{"worker": 9}\n')
    timeline = Timeline(1)
    timeline.span(0, "wait", 0.0, 1e-7)
    timeline.flush(tmp_path)
    assert rows(tmp_path) == [{"worker": 0, "what": "wait", "start": 0, "end": 1e-7}]


def test_memory_and_file_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(runner.run_folder.timeline, "BUFFERED_LINES", 10)
    monkeypatch.setattr(runner.run_folder.timeline, "TIMELINE_LINES", 25)
    timeline = Timeline(1)
    timeline.flush(tmp_path)
    for number in range(40):
        timeline.span(0, "compute", number, number + 1)
        assert len(timeline._pending) < 10
    assert len(rows(tmp_path)) == 20
    timeline.write(tmp_path, 40.0)
    assert len(rows(tmp_path)) == 25
    report = json.loads((tmp_path / "workers.json").read_text())
    assert (report["timeline_lines"], report["timeline_dropped"]) == (25, 15)
    assert report["workers"][0]["gradients"] == 40
    assert report["workers"][0]["utilization"] == 1.0


def test_rank_without_a_folder_keeps_sums_alone():
    timeline = Timeline(1, writes=False)
    for second in range(3):
        timeline.span(0, "compute", second, second + 1)
    state = timeline.state_dict()
    assert (state["pending"], state["gradients"], timeline.report(3)["timeline_lines"]) == ([], [3], 0)


@pytest.mark.parametrize("flushed", [True, False])
def test_resumed_timeline_equals_unbroken(tmp_path, flushed):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    straight = Timeline(2)
    busy(straight, 6)
    straight.write(whole, 24.0)

    killed = Timeline(2)
    if flushed:
        killed.flush(stopped)
    busy(killed, 4)
    state = json.loads(json.dumps(killed.state_dict(), allow_nan=False))
    busy(killed, 1, first=4)
    killed.flush(stopped)  # lines after the checkpoint, to be cut off
    with open(stopped / "timeline.jsonl", "a") as file:
        file.write('{"worker": 0, "wh')

    resumed = Timeline(2)
    resumed.load_state_dict(state)
    busy(resumed, 2, first=4)
    resumed.write(stopped, 24.0)
    assert (stopped / "timeline.jsonl").read_bytes() == (whole / "timeline.jsonl").read_bytes()
    assert (stopped / "workers.json").read_bytes() == (whole / "workers.json").read_bytes()
    assert resumed.staleness_since_last() == straight.staleness_since_last()


def test_state_of_another_cluster_is_refused():
    with pytest.raises(ValueError, match=r"cluster\.workers=3: the checkpoint has 2 workers; allowed: 2"):
        Timeline(3).load_state_dict(Timeline(2).state_dict())


@pytest.mark.parametrize(
    "span", [("sleep", 0.0, 1.0), ("wait", 2.0, 1.0), ("wait", 0.0, math.inf), ("wait", math.nan, 1.0)]
)
def test_impossible_spans_are_refused(span):
    with pytest.raises(ValueError, match="allowed: "):
        Timeline(1).span(0, *span)


def test_summary_without_waiting():
    timeline = Timeline(2)
    timeline.span(0, "compute", 0.0, 4.0)
    timeline.span(1, "compute", 0.0, 5.1)  # a gradient that the run's end cuts off
    slow = timeline.slowest(5.0)
    assert slow["slowest"]["waiting_share"] is None
    assert "waiting" not in slowest_line({**slow, "clock": "virtual"})


def test_the_slowest_worker_is_named():
    timeline = Timeline(3)
    for worker, seconds in enumerate((1.0, 4.0, 2.0)):
        timeline.span(worker, "compute", 0.0, seconds)
        timeline.span(worker, "wait", seconds, 5.0)
    timeline.staleness(1, 4)
    timeline.staleness(1, 5)
    slow = timeline.slowest(5.0)
    assert slow["slowest"] == {
        "worker": 1,
        "seconds_per_gradient": 4.0,
        "times_median": 2.0,
        "waiting_share": pytest.approx(1 / (4 + 1 + 3)),
    }
    assert slow["staleness_by_worker"] == [None, 4.5, None]
    line = slowest_line({**slow, "clock": "virtual"})
    assert line == "worker 1: 4 virtual s a gradient, 2.00 x the median; its own waiting is 12 % of that of all workers"
    assert Timeline(1).slowest(5.0) == {}
    other = Timeline(3)
    other.merge(1, timeline.totals(1))
    assert other.slowest(5.0)["slowest"]["worker"] == 1


def test_what_was_stopped_is_no_gradient():
    """Four seconds, of which one was computed for nothing."""
    timeline = Timeline(1)
    timeline.span(0, "stopped", 0.0, 1.0)
    timeline.span(0, "compute", 1.0, 3.0)
    row = timeline.report(4.0)["workers"][0]
    assert (row["utilization"], row["stopped"], row["gradients"]) == (0.5, 0.25, 1)
    assert timeline.round_trip(0, 3.0, 4.0, 4.0, 0.5, "stopped") == 0.5
    assert timeline.report(4.0)["workers"][0]["gradients"] == 1


def test_states_from_before_there_were_stops_are_read():
    timeline = Timeline(2)
    timeline.span(1, "compute", 0.0, 1.0)
    state = timeline.state_dict()
    for kinds in (*state["seconds"], *state["last"]):
        del kinds["stopped"]
    again = Timeline(2)
    again.load_state_dict(state)
    assert again.report(1.0) == timeline.report(1.0)
