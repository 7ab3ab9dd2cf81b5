from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cli.dcreport import main
from runner.report import clean
from runner.run_folder import folders

MakeRun = Callable[..., Path]


@pytest.fixture
def with_checkpoints(make_run: MakeRun) -> MakeRun:
    def make(name: str, size: int = 1000, **given: object) -> Path:
        folder = make_run(name, [50.0], **given)
        (folder / "checkpoints").mkdir()
        for step in (1, 2):
            (folder / "checkpoints" / f"step-{step:012d}.pt").write_bytes(b"x" * size)
        return folder

    return make


def files(folder: Path) -> int:
    return len(list(folder.glob("checkpoints/*")))


def test_only_finished_runs_lose_their_checkpoints(with_checkpoints: MakeRun, make_run: MakeRun, tmp_path: Path):
    ended = [with_checkpoints("sweep/0", 2000), with_checkpoints("b", status="diverged")]
    states = ("interrupted", "running", "failed")
    others = [with_checkpoints(state, status=state) for state in states]
    lost = with_checkpoints("lost")
    (lost / "summary.json").write_text('{"status": "comp')
    make_run("none", [50.0])
    found = clean.find([tmp_path / "runs"])
    assert [(own.folder, own.size) for own in found if own.finished] == [(ended[0], 4000), (ended[1], 2000)]
    text = clean.described(found)
    assert "6.0 kB are checkpoints of finished runs (2)" in text
    assert "8.0 kB are those of runs that may go on (4), and stay" in text
    assert "cannot be made longer (run.resume=DIR run.epochs=N)" in text
    assert clean.remove(found) == 6000
    assert [files(folder) for folder in (*ended, *others, lost)] == [0, 0, 2, 2, 2, 2]
    assert (ended[0] / "summary.json").exists()


def test_run_in_progress_keeps_its_checkpoints(with_checkpoints: MakeRun, tmp_path: Path):
    folder = with_checkpoints("a")
    with folders.run_lock(folder):
        assert [own.finished for own in clean.find([tmp_path])] == [False]


def test_run_that_goes_on_meanwhile_is_left_alone(with_checkpoints: MakeRun, tmp_path: Path):
    folder = with_checkpoints("a")
    found = clean.find([tmp_path])
    (folder / "summary.json").write_text('{"status": "interrupted"}')
    assert clean.remove(found) == 0
    assert files(folder) == 2


def test_many_runs_are_told_in_few_lines(tmp_path: Path):
    found = [clean.Checkpoints(tmp_path / str(n), 1000, True) for n in range(25)]
    text = clean.described(found)
    assert text.count("\n") == 12
    assert "15.0 kB  in 15 more" in text
    assert clean.described([]) == "0 bytes are checkpoints of finished runs (0)"


@pytest.mark.parametrize(("given", "left"), [(["--clean"], True), (["--clean", "--yes"], False)])
def test_clean_removes_only_what_was_agreed_to(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], given: list[str], left: bool
) -> None:
    folder = make_run("a", [50.0])
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-000000000001.pt").write_bytes(b"x" * 3000)
    assert main([str(folder.parent), *given]) == 0
    assert (folder / "checkpoints").exists() == left
    out = capsys.readouterr().out
    assert "3.0 kB are checkpoints of finished runs (1)\n" in out
    assert out.endswith("nothing removed; --yes removes them without a question\n" if left else "3.0 kB removed\n")


@pytest.mark.parametrize("option", ["--out=o", "--watch", "--archive=a.jsonl"])
def test_option_that_clean_does_not_need_is_refused(
    option: str, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_run("a", [50.0])), "--clean", option]) == 2
    expected = f"dcreport: {option}: would do nothing; allowed: without --clean, which writes nothing\n"
    assert capsys.readouterr().err == expected
