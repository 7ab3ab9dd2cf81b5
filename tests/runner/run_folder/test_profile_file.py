import json
from pathlib import Path
from typing import Any

import pytest

from runner.run_folder import profile_file
from runner.run_folder.profile_file import ProfileRow, Span, pack, unpack, write
from tests.terminal import console, written

OWN = ProfileRow("the run", {"start: data": 3.0, "update": 9.0, "rest": 3.0}, [Span("load", "start", 100.0, 3.0)], 2)
OTHER = ProfileRow("rank 1", {"update": 0.001, "waiting": 14.0}, [Span("Link.receive", "waiting", 99.5, 14.0)], 1)


def document(folder: Path, *rows: ProfileRow) -> dict[str, Any]:
    write(rows, folder, console())
    return json.loads((folder / "profile.json").read_text())


def test_run_alone_is_one_process(tmp_path: Path):
    found = document(tmp_path, OWN)
    event = {"name": "load", "cat": "start", "ph": "X", "ts": 0.0, "dur": 3e6, "pid": 0, "tid": 0}
    assert found["traceEvents"] == [event]
    assert found["otherData"] == {"seconds": OWN.seconds, "total": 15.0, "left_out": 2, "others": {}}


def test_each_process_has_a_row_with_its_name(tmp_path: Path):
    found = document(tmp_path, OWN, OTHER)
    names = {e["pid"]: e["args"]["name"] for e in found["traceEvents"] if e["name"] == "process_name"}
    assert names == {0: "the run", 1: "rank 1"}
    spans = [(e["pid"], e["name"], e["ts"]) for e in found["traceEvents"] if e["ph"] == "X"]
    # The first of all begins the picture, whose it may be.
    assert spans == [(0, "load", 5e5), (1, "Link.receive", 0.0)]
    assert (found["otherData"]["total"], found["otherData"]["others"]) == (15.0, {"rank 1": OTHER.seconds})


def test_table_has_shares_of_the_whole(tmp_path: Path):
    target = console(width=80)
    write([OWN, OTHER], tmp_path, target)
    text = written(target)
    assert "where 15.0 s went" in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["start: data", "3.00 s", "20.0 %"],
        ["update", "9.00 s", "60.0 %"],
        ["rest", "3.00 s", "20.0 %"],
        ["rank 1: waiting", "14.00 s", "93.3 %"],
    ]
    assert "profile.json does not show 3 more calls, which the table counts" in text


def test_rows_of_another_machine_are_by_this_clock(monkeypatch: pytest.MonkeyPatch):
    """Whose monotonic clock began 40 seconds later."""
    monkeypatch.setattr(profile_file, "_wall_begin", lambda: 1040.0)
    raw = pack([OTHER])
    monkeypatch.setattr(profile_file, "_wall_begin", lambda: 1000.0)
    [row] = unpack(raw)
    assert row == ProfileRow("rank 1", OTHER.seconds, [Span("Link.receive", "waiting", 139.5, 14.0)], 1)
