import json
import logging
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from runner.run_folder import jsonl
from runner.run_folder.jsonl import (
    read_document,
    read_lines,
    scan_lines,
    to_jsonable,
    to_line,
    truncate_lines,
    write_document,
)
from tests.disk import limited


def strict(text: str):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_values_become_strict_json():
    row = {
        "nan": math.nan,
        "inf": [math.inf, -math.inf],
        "numpy": np.float32(0.5),
        "tensor": torch.tensor(3),
        "tensor_nan": torch.tensor(math.nan),
        "path": Path("a/b"),
        "nested": {"a": (1, True, None, "x")},
    }
    assert strict(to_line(row)) == {
        "nan": None,
        "inf": [None, None],
        "numpy": 0.5,
        "tensor": 3,
        "tensor_nan": None,
        "path": "a/b",
        "nested": {"a": [1, True, None, "x"]},
    }


@pytest.mark.parametrize("value", [torch.zeros(3), object(), {1, 2}])
def test_what_json_cannot_hold_is_refused(value: object):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        to_jsonable({"key": value})


def test_document_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "summary.json"
    write_document(path, {"status": "running"})

    def no_space(*arguments: object):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space left"):
            write_document(path, {"status": "completed"})
    assert json.loads(path.read_text()) == {"status": "running"}
    assert os.listdir(tmp_path) == ["summary.json"]
    write_document(path, {"status": "completed"})
    assert json.loads(path.read_text()) == {"status": "completed"}


def test_cutting_back_keeps_the_first_lines(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(to_line({"epoch": epoch}) for epoch in range(5)))
    assert truncate_lines(path, 3) == 3
    assert [row["epoch"] for row in read_lines(path)] == [0, 1, 2]
    assert truncate_lines(path, 0) == 0
    assert path.read_bytes() == b""
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_torn_last_line_does_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert [row["epoch"] for row in read_lines(path)] == [1, 2]
    assert truncate_lines(path, 2) == 2
    assert path.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    path.write_text('{"epoch": 1}\n{')
    assert truncate_lines(path, 1) == 1
    assert path.read_text() == '{"epoch": 1}\n', "a single byte is torn off too"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n')
    with caplog.at_level(logging.WARNING, "dcrun"):
        assert truncate_lines(path, 7) == 2
    assert "has 2 whole lines, the checkpoint knows of 7" in caplog.text


def test_a_missing_file_has_no_lines(tmp_path: Path):
    assert read_lines(tmp_path / "none.jsonl") == []
    assert truncate_lines(tmp_path / "none.jsonl", 0) == 0
    with pytest.raises(ValueError, match="lines=-1"):
        truncate_lines(tmp_path / "none.jsonl", -1)


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\ngarbage\n[1]\n\xff\n' + b"[" * 99_999 + b'\n{"epoch": 2}\n{"epo')
    assert scan_lines(path) == ([{"epoch": 1}, {"epoch": 2}], 4)
    assert scan_lines(path, 15) == ([{"epoch": 1}], 0)
    with pytest.raises(ValueError, match=r"metrics\.jsonl: 4 lines cannot be read"):
        read_lines(path)
    with pytest.raises(FileNotFoundError):
        scan_lines(tmp_path / "none.jsonl")


@pytest.mark.parametrize(("text", "message"), [("[1]", "holds no JSON object"), ("[" * 99_999, "nested too deep")])
def test_document_that_is_no_object(tmp_path: Path, text: str, message: str):
    path = tmp_path / "summary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_document(path)


def test_lines_are_appended_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    jsonl.append(path, '{"a": 1}\n')
    with limited(20), pytest.raises(OSError, match="File too large"):
        jsonl.append(path, '{"a": 2}\n{"a": 3}\n')
    assert path.read_text() == '{"a": 1}\n'
    jsonl.append(path, '{"a": 2}\n')
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'


def test_document_in_its_own_place_needs_no_room(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text('{"status": "running"}\n')
    jsonl.overwrite(path, b"{}")
    assert path.read_text() == "{}"
    with pytest.raises(OSError, match="No space left"):
        jsonl.overwrite(path, b" " * 100_000)
    assert path.read_text() == "{}"


@pytest.mark.parametrize("old", ['{"status": "running", "threads": 1}\n', "{}"], ids=["longer", "shorter"])
def test_overwriting_that_stops_half_way_is_undone(old: str, tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(old)
    with limited(20), pytest.raises(OSError, match="File too large"):
        jsonl.overwrite(path, b'{"status": "interrupted", "error": "no room"}')
    assert path.read_text() == old
