"""The nearest right words; `tests/runner/cli/test_main.py` has whole command lines and what is said of them."""

import sys
from collections.abc import Iterator

import pytest
from omegaconf import OmegaConf

from runner.config.errors import MOST_SHOWN, InputError
from runner.config.override_errors import flat_keys, nearest, parse, suggestions, unknown_key

KEYS = ["run", "run.epochs", "run.batch_size", "schedule.lr", "schedule.lr_end", "cluster.workers"]


def test_nearest_word_comes_first():
    assert nearest("dcasgd", ["ssgd", "dc_asgd_a", "asgd"])[0] == "dc_asgd_a"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("run.epoch", "run.epochs"), ("lr", "schedule.lr"), ("workers", "cluster.workers"), ("Run.Epochs", "run.epochs")],
)
def test_keys_are_found_without_section(typed: str, meant: str):
    assert suggestions(typed, KEYS)[0] == meant
    assert str(unknown_key(typed, 1, KEYS)).startswith(f"{typed}=1: unknown key; nearest: {meant}")


def test_unlike_keys_are_not_suggested():
    assert suggestions("zzz", KEYS) == []
    assert "dcrun --help" in str(unknown_key("zzz", None, KEYS))


def test_sections_and_leaves_have_keys():
    cfg = OmegaConf.create({"a": {"b": 1, "c": {"d": "${e}"}}, "e": "???"})
    assert flat_keys(cfg) == ["a", "a.b", "a.c", "a.c.d", "e"]


@pytest.mark.parametrize("typed", ["run", "=3", "run.epochs==3", "run.name=[a"])
def test_unreadable_override_is_quoted(typed: str):
    with pytest.raises(InputError) as caught:
        parse(["seed=1", typed])
    assert str(caught.value).startswith(f"{typed}: ")


HOSTILE = {
    "5000 digits": f"run.epochs={'9' * 5000}",
    "600 brackets": f"run.diagnostics={'[' * 600}{']' * 600}",
    "20000 equal signs": f"run.name={'=' * 20_000}",
    "escape sequence": "run.name=\x1b[31mred",
    "byte that is no UTF-8": "run.name=a\udcffb",
    "hash": "run.name=#",
    "full-width digit": "run.epochs=\uff11",
}


@pytest.fixture
def python_limit() -> Iterator[None]:
    """Python's own limit of recursion, as the command has it: libraries that other tests import raise it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("python_limit")
@pytest.mark.parametrize("typed", HOSTILE.values(), ids=HOSTILE)
def test_hostile_override_is_one_short_line(typed: str):
    with pytest.raises(InputError) as caught:
        parse([typed])
    line = str(caught.value)
    assert line.startswith(typed[:14].replace("\x1b", "\\x1b")[:14])
    assert "cannot be read as key=value" in line
    assert len(line) < 2 * MOST_SHOWN
    assert not any(letter in line for letter in "\n\x1b")
