"""What a trace holds, and what it refuses."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from runner.config.errors import InputError
from runner.run_folder.trace import BITS, FILE, PUSH, VERSION, Record, Trace
from runner.train import build
from tests.traces import ABOUT
from tests.trial import compose

LINE = {"worker": 0, "pulled": 0, "version": 0, "batch": 0, "time": 1.0, "compute": 0.5, "waited": 0.0, "served": 0.1}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / FILE
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ([], "line 1 does not begin a trace"),
        ([{"trace": VERSION + 1}], "line 1 does not begin a trace"),
        ([[]], "line 1 does not begin a trace"),
        ([{"trace": VERSION, "workers": 3}], "line 1 lacks batch_size"),
        ([ABOUT, []], "line 2 is not a message"),
        ([ABOUT, LINE, LINE | {"worker": 3}], "line 3 is not a message: its worker is 3"),
        ([ABOUT, LINE | {"worker": -1}], "its worker is -1"),
        ([ABOUT, LINE | {"worker": True}], "its worker is True"),
        ([ABOUT, LINE | {"batch": 0.5}], "its batch is 0.5"),
        ([ABOUT, LINE | {"pulled": None}], "its pulled is None"),
        ([ABOUT, LINE | {"time": "1"}], "its time is '1'"),
        ([ABOUT, LINE | {"compute": float("nan")}], "its compute is nan"),
        ([ABOUT, {"lost": 7, "version": 0, "time": 1.0}], "its lost is 7"),
        ([ABOUT, {"resumed": [], "version": 0, "time": 1.0}], "line 2 is not a message"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, rows: list[Any], wrong: str):
    path = written(tmp_path, *rows)
    with pytest.raises(InputError, match=r"^cluster.trace=") as caught:
        Trace.read(str(path))
    assert wrong in str(caught.value)


def test_a_torn_last_line_is_left_out(tmp_path: Path):
    path = written(tmp_path, ABOUT, LINE)
    path.write_text(path.read_text() + '{"worker": 1, "pul')
    assert len(Trace.read(str(tmp_path)).records) == 1


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_place_without_a_trace_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"^cluster.trace={place}: .*allowed: a run folder with a trace.jsonl"):
        Trace.read(place)


RUN = ("model=linear", "algorithm=asgd", "run.epochs=1", "dataset.limit_train=128", "cluster.workers=2")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("cluster.workers=3", "cluster.workers=3: the trace in .* was recorded with 2; allowed: 2"),
        ("run.batch_size=16", "run.batch_size=16: .*; allowed: 32"),
        ("run.epochs=2", "run.epochs=2: .*; allowed: 1$"),
        ("dataset.limit_train=96", "dataset=digits: its training samples are 9[0-9], the trace has 12[0-9]"),
        ("dataset.limit_test=50", "dataset=digits: its content are .*"),
    ],
)
def test_trace_of_another_run_is_refused(tmp_path: Path, override: str, line: str):
    trace = Trace(tmp_path, build.build_run(compose(*RUN)).trace_facts(), [])
    components = build.build_run(compose(*RUN, override))
    with pytest.raises(InputError, match=line):
        trace.check(components.trace_facts(), len(components.batches))


def test_other_machine_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    components = build.build_run(compose(*RUN))
    about = components.trace_facts() | {"isa": "SSE2", "torch": "0.1"}
    with caplog.at_level(logging.WARNING, "dcrun"):
        Trace(tmp_path, about, []).check(components.trace_facts(), len(components.batches))
    here = components.trace_facts()
    assert f"isa SSE2 (here {here['isa']}), torch 0.1 (here {here['torch']})" in caplog.messages[0]
    assert "its run ended after batch 0 of 4" in caplog.messages[1]


def test_every_machine_is_compared(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    components = build.build_run(compose(*RUN))
    here = components.trace_facts()
    about = here | {"continued": [{key: here[key] for key in BITS}, {key: here[key] for key in BITS} | {"threads": 99}]}
    with caplog.at_level(logging.WARNING, "dcrun"):
        Trace(tmp_path, about, []).check(here, 0)
    assert [message.split(":")[0] for message in caplog.messages] == [
        f"the trace was recorded with threads 99 (here {here['threads']})"
    ]


@pytest.mark.parametrize(("mine", "theirs"), [(None, [4, 4]), ([4, 4], None), ([0, 4], [4, 4])])
def test_other_barriers_are_refused(tmp_path: Path, mine: list[int] | None, theirs: list[int] | None):
    facts = build.build_run(compose(*RUN)).trace_facts()
    with pytest.raises(InputError, match=r"^algorithm=asgd: it ha.*, the recorded run ha.*; allowed: methods whose"):
        Trace(tmp_path, facts | {"barriers": theirs}, []).check(facts | {"barriers": mine}, 0)
    Trace(tmp_path, facts | {"barriers": theirs}, []).check(facts | {"barriers": theirs}, 0)


def test_same_machine_is_not_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    components = build.build_run(compose(*RUN))
    records = [Record(PUSH, 0, version=v, time=1.0) for v in range(len(components.batches))]
    with caplog.at_level(logging.WARNING, "dcrun"):
        Trace(tmp_path, components.trace_facts(), records).check(components.trace_facts(), len(components.batches))
    assert caplog.messages == []
