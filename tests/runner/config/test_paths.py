import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.config.errors import InputError
from runner.config.override_errors import parse
from runner.config.paths import as_typed, expanded, quoted

NAMES = [
    "plain",
    "a b",
    "a'b",
    'a"b',
    "a=b,c",
    "tail\\",
    "a\\'b",
    "x(1)[2]{3}:",
    "a]",
    "{a",
    "a$b",
    "a#b",
    "~a",
    "naïve",
    "null",
    "1e3",
    " a ",
    "!a",
    "a;b",
    "a`b",
    "a*?",
]


@pytest.mark.parametrize("value", NAMES)
def test_quoted_values_survive_the_grammar(value: str):
    [override] = OverridesParser.create().parse_overrides([f"key={quoted(value)}"])
    assert override.value() == value


@pytest.mark.parametrize("value", [name for name in NAMES if name not in ("null", "1e3")])
def test_typed_values_survive_shell_and_grammar(value: str):
    [argument] = shlex.split(as_typed("key", value))
    [override] = OverridesParser.create().parse_overrides([argument])
    assert override.value() == value


def test_readable_where_that_is_safe():
    assert as_typed("run.resume", "outputs/a-1") == "run.resume=outputs/a-1"
    assert as_typed("run.resume", "my runs/a=1") == """'run.resume="my runs/a=1"'"""


@pytest.mark.parametrize("typed", ["run.name=[a", "run.resume=a=b", "hydra.run.dir=a{b", "cluster.trace=~/é (1)"])
def test_hint_for_quoting_works(typed: str):
    with pytest.raises(InputError) as caught:
        parse([typed])
    [argument] = shlex.split(str(caught.value).partition(", as ")[2])
    [override] = parse([argument])
    assert f"{override.key_or_group}={override.value()}" == typed


def test_home_is_where_the_user_lives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a b", "run.resume") == tmp_path / "a b"
    assert expanded("a~b", "run.resume") == Path("a~b")
    with pytest.raises(InputError, match=r"^run\.resume=~nobody-here/a: cannot be found"):
        expanded("~nobody-here/a", "run.resume")
    with pytest.raises(InputError, match=r"holds \$\{, which Hydra takes for an interpolation"):
        expanded("a${b}", "run.resume")
