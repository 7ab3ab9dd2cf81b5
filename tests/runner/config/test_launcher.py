"""What the environment of a launched process says."""

import pytest

from runner.config import launcher
from runner.config.errors import InputError

WHOLE = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)


def test_ranks_are_counted_by_the_environment(monkeypatch: pytest.MonkeyPatch):
    launcher.check_complete()
    assert (launcher.rank(), launcher.world_size()) == (3, 8)
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        with monkeypatch.context() as patch:
            patch.delenv(name)
            assert (launcher.rank(), launcher.world_size()) == (0, 1)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RANK", "eight", "0 to 7"),
        ("RANK", "8", "0 to 7"),
        ("RANK", "-1", "0 to 7"),
        ("RANK", "", "0 to 7"),
        ("WORLD_SIZE", "0", "whole numbers from 1"),
        ("WORLD_SIZE", "²", "whole numbers from 1"),
        ("MASTER_PORT", "70000", "1 to 65535"),
        ("MASTER_PORT", "http", "1 to 65535"),
    ],
)
def test_wrong_numbers_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=f"^{name}={value}: is not what a launcher sets; allowed: {allowed}"):
        launcher.check_complete()


def test_a_missing_port_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(InputError, match=r"^8 processes were started \(WORLD_SIZE\), and MASTER_PORT is not set"):
        launcher.check_complete()


def test_one_rank_speaks_for_its_machine(monkeypatch: pytest.MonkeyPatch):
    assert (launcher.speaks(), launcher.prefix()) == (True, "rank 3: ")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (launcher.speaks(), launcher.prefix()) == (False, "")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert (launcher.speaks(), launcher.prefix()) == (True, "")


def test_one_machine_has_all_ranks(monkeypatch: pytest.MonkeyPatch):
    assert not launcher.one_machine()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert not launcher.one_machine()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert launcher.one_machine()
