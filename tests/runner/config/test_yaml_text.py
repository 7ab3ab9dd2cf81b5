"""YAML files of somebody else's: each kind of fault is one line that names the file, and none of them hangs."""

import os
from pathlib import Path

import pytest

from runner.config import yaml_text
from runner.config.errors import InputError

GOOD = "_target_: algorithms.sgd.SGD\nmomentum: 0.9\n"
LEVELS = "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
BOMB = f"a: &a [{','.join('x' * 10)}]\n{LEVELS}"
FAULTS: dict[str, tuple[bytes, str]] = {
    "tab": (b"a: 1\n\tb: 2\n", r"mine.yaml, line 2: is not YAML \(found character '\\t'"),
    "UTF-16": (GOOD.encode("utf-16"), r"mine.yaml is not UTF-8 text \(invalid start byte at byte 0\)"),
    "Latin-1": (b"a: 1 # \xe9\n", r"mine.yaml is not UTF-8 text \(invalid continuation byte at byte 7\)"),
    "binary": (bytes(range(256)), "mine.yaml is not UTF-8 text"),
    "NUL": (b"a: b\0\n", r"mine.yaml: is not YAML \(unacceptable character #x0000"),
    "same key twice": (b"a: 1\nb: 2\na: 3\n", r"mine.yaml, line 3: is not YAML \(found duplicate key a\)"),
    "unknown anchor": (b"a: *nothing\n", r"line 1: is not YAML \(found undefined alias 'nothing'\)"),
    "merge of nothing": (b"<<: *x\n", r"line 1: is not YAML \(found undefined alias 'x'\)"),
    "open quote": (b"a: 'b\n", r"line 2: is not YAML \(found unexpected end of stream\)"),
    "two documents": (b"a: 1\n---\nb: 2\n", r"line 2: is not YAML \(but found another document\)"),
    "call of Python": (b"a: !!python/object/apply:os.system [x]\n", "could not determine a constructor for the tag"),
    "one number": (b"3\n", "mine.yaml Invalid loaded object type: int"),
    "billion laughs": (BOMB.encode(), "mine.yaml has more than 20 YAML aliases"),
    "nested lists": (b"a: " + b"[" * 3000 + b"]" * 3000, "is too large or nested too deep"),
    "nested maps": (b"a: " + b"{b: " * 1000 + b"1" + b"}" * 1000, "mine.yaml is nested too deep"),
    "too large": (b"a: " + b"x" * 1_000_001, "is too large or nested too deep"),
}


def write(folder: Path, content: bytes) -> Path:
    path = folder / "algorithm" / "mine.yaml"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("content", "wrong"), FAULTS.values(), ids=FAULTS)
def test_option_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, wrong: str):
    write(tmp_path, content)
    with pytest.raises(InputError, match=rf"{wrong}.*; allowed: ") as error:
        yaml_text.check_options([tmp_path], [("model", "other"), ("algorithm", "mine")])
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content", [GOOD.encode(), b"\xef\xbb\xbf" + GOOD.encode(), b"", GOOD.replace("\n", "\r").encode()]
)
def test_option_that_hydra_reads_is_taken(tmp_path: Path, content: bytes):
    write(tmp_path, content)
    yaml_text.check_options([tmp_path], [("algorithm", "mine"), ("algorithm", "absent")])


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str):
    path = write(tmp_path, b"")
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(InputError, match=r"^algorithm=mine: .*mine.yaml is not a plain file; allowed: "):
        yaml_text.check_options([tmp_path], [("algorithm", "mine")])
    with pytest.raises(ValueError, match="is not a plain file"):
        yaml_text.load(path)


def test_few_aliases_are_taken(tmp_path: Path):
    path = write(tmp_path, b"a: &a [1, 2]\nb: *a\nc: {d: *a}\n")
    assert yaml_text.load(path).c.d == [1, 2]
    with pytest.raises(ValueError, match="nested too deep"):
        yaml_text.load(write(tmp_path / "algorithm", FAULTS["nested maps"][0]))
