import re

import pytest

from runner.cli import dcreport, main, version


def test_version_tells_what_computes_the_bits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(version, "git_commit", lambda: "0123abc-dirty")
    assert main.main(["--version"]) == 0
    number = r"\d[\w.+]*"
    line = rf"dcrun {number}, torch {number}, Python {number}, commit 0123abc-dirty\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    monkeypatch.setattr(version, "git_commit", lambda: None)
    assert main.main(["--version"]) == 0
    assert "commit" not in capsys.readouterr().out


def test_dcreport_tells_the_same(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        dcreport.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{version.line()}\n"
