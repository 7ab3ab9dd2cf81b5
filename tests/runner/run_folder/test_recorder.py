"""What a recorder writes, what it does when it cannot, and what recording costs."""

import logging
from pathlib import Path

import pytest

from runner.run_folder.recorder import BUFFERED, Recorder
from runner.run_folder.trace import BITS, FILE, LOST, PUSH, RESUMED, STOPPED, Record, Trace
from tests.traces import ABOUT


def test_what_is_recorded_is_read(tmp_path: Path):
    recorder = Recorder(tmp_path, ABOUT)
    recorder.begin()
    recorder.push(2, pulled=0, version=0, batch=1, time=1 / 3, compute=0.25, waited=0.01, served=0.002, took=0.25)
    recorder.push(2, pulled=0, version=1, batch=2, time=0.4, compute=0.01, took=1 / 3)
    recorder.lost(1, version=1, time=0.5)
    recorder.resumed(version=1, time=0.6)
    recorder.push(0, pulled=1, version=1, batch=0, time=0.7, withheld=0.1)
    recorder.stopped(2, pulled=1, version=2, batch=3, time=0.8, compute=0.02, waited=0.01, served=0.002)
    recorder.flush()
    trace = Trace.read(str(tmp_path))
    assert trace.records == [
        Record(PUSH, 2, version=0, time=1 / 3, pulled=0, batch=1, compute=0.25, waited=0.01, served=0.002),
        Record(PUSH, 2, version=1, time=0.4, pulled=0, batch=2, compute=0.01, took=1 / 3),
        Record(LOST, 1, version=1, time=0.5),
        Record(RESUMED, -1, version=1, time=0.6),
        Record(PUSH, 0, version=1, time=0.7, pulled=1, batch=0, withheld=0.1),
        Record(STOPPED, 2, version=2, time=0.8, pulled=1, batch=3, compute=0.02, waited=0.01, served=0.002),
    ]
    assert [record.computing for record in trace.records] == [0.25, 1 / 3, 0.0, 0.0, 0.0, 0.02]
    assert trace.updates == 3
    assert trace.about["continued"] == [dict.fromkeys(BITS, "x")]


def test_recording_is_truncated_on_resume(tmp_path: Path):
    first = Recorder(tmp_path, ABOUT)
    first.begin()
    first.push(0, pulled=0, version=0, batch=0, time=1.0)
    state = first.state_dict()
    first.push(1, pulled=0, version=1, batch=1, time=2.0)
    first.flush()
    second = Recorder(tmp_path, ABOUT)
    second.load_state_dict(state)
    second.begin()
    second.push(2, pulled=0, version=1, batch=2, time=3.0)
    second.flush()
    assert [record.worker for record in Trace.read(str(tmp_path)).records] == [0, 2]


def test_a_new_run_begins_a_new_file(tmp_path: Path):
    (tmp_path / FILE).write_text('{"old": true}\n{"older": true}\n')
    Recorder(tmp_path, ABOUT).begin()
    assert Trace.read(str(tmp_path)).records == []


def test_full_disk_ends_only_the_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    recorder = Recorder(tmp_path, ABOUT)
    recorder.begin()
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with caplog.at_level(logging.WARNING, "dcrun"):
        for version in range(3 * BUFFERED):
            recorder.push(0, pulled=version, version=version, batch=version, time=1.0)
    assert [r.getMessage() for r in caplog.records if "could not be written" in r.getMessage()] == [
        f"{tmp_path / FILE} could not be written (Is a directory); the run goes on, unrecorded"
    ]


def test_messages_are_written_in_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder(tmp_path, ABOUT)
    recorder.begin()
    flushed = []
    flush = recorder.flush
    monkeypatch.setattr(recorder, "flush", lambda: flushed.append(1) or flush())
    for version in range(4 * BUFFERED + 1):
        recorder.push(1, pulled=version, version=version + 3, batch=version, time=version / 7, compute=1 / 3)
    assert len(flushed) == 4, "the server records every message: a file opened for each would hold it up"
    assert (tmp_path / FILE).read_text().count("\n") == 1 + 4 * BUFFERED
