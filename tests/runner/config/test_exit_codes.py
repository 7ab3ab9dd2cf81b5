"""How a call ends: its exit code, and one line on the terminal."""

import logging
from pathlib import Path

import pytest

from data import DamagedImage
from runner.config.errors import InputError
from runner.config.exit_codes import log_to, run_guarded


def fail(error: BaseException) -> int:
    raise error


def test_own_code_is_passed_on():
    assert run_guarded(lambda: 3, None) == 3


@pytest.mark.parametrize("error", [InputError("a=1: no"), DamagedImage("picture.jpeg is damaged")])
def test_wrong_input_is_two(error: Exception, capsys: pytest.CaptureFixture[str]):
    assert run_guarded(lambda: fail(error), None) == 2
    assert capsys.readouterr().err == f"dcrun: {error}\n"


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]):
    assert run_guarded(lambda: fail(KeyboardInterrupt()), None) == 130
    assert capsys.readouterr().err == ""


def test_unexpected_error_names_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "dcrun"):
        assert run_guarded(lambda: fail(RuntimeError("two\nlines")), tmp_path, "rank 3") == 1
    line = capsys.readouterr().err
    assert line == f"dcrun: rank 3: RuntimeError: two; lines (traceback in {tmp_path / 'dcrun.log'})\n"
    assert "Traceback (most recent call last)" in caplog.text


def test_traceback_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert run_guarded(lambda: fail(InputError("a=1: no")), None) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_log_file_has_more_than_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log_to(tmp_path)
    logging.getLogger("dcrun").info("a detail")
    logging.getLogger("dcrun").warning("a warning")
    assert capsys.readouterr().err == "WARNING a warning\n"
    text = (tmp_path / "dcrun.log").read_text()
    assert "INFO dcrun: a detail" in text
    assert "WARNING dcrun: a warning" in text
