"""The nearest right words; `tests/runner/cli/test_main.py` has whole command lines and what is said of them."""

import pytest
from omegaconf import OmegaConf

from runner.config.errors import InputError
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
