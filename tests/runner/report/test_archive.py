import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.config.errors import InputError
from runner.report import archive
from runner.report.collect import collect
from runner.report.run import Run

MakeRun = Callable[..., Path]
HEADER = '{"archive": "dcrun runs", "version": 1}\n'
RUN = '{"run": "a", "config": {}}\n'


def contents(run: Run) -> tuple[object, ...]:
    """All that the report reads; as text, since NaN is not equal to itself."""
    read_at_once = (run.name, run.summary, run.rows, run.config, run.overrides, run.problems)
    return tuple(map(repr, (*read_at_once, run.choices, run.layer_rows(), run.workers(), run.timeline())))


@pytest.fixture
def full_run(make_run: MakeRun) -> Path:
    """Makes a run folder with every file that the report reads, and numbers that are easily damaged."""
    folder = make_run("sweep/0", [50.0, 36.449999999999996], config={"schedule.lr": 1e-05, "cluster.speeds": {1: 0.1}})
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3.0, "test_error": NaN, "tiny": 5e-324, "sum": 0.30000000000000004, "big": 1e+22}\n')
    (folder / "layers.jsonl").write_text('{"epoch": 1.0, "variance_factor": {"conv": 1.1}}\n')
    (folder / "workers.json").write_text('{"staleness": {"0": 3, "7": 1}}')
    span = {"worker": 0, "what": "compute", "start": 0.1, "end": 0.30000000000000004}
    (folder / "timeline.jsonl").write_text((json.dumps(span) + "\n") * 500)
    choices = {"schedule": "one_cycle", "hydra/launcher": "basic"}
    hydra = {"hydra": {"runtime": {"choices": choices}}}
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps(hydra))
    return folder


def test_archived_runs_equal_their_folders(full_run: Path, make_run: MakeRun, tmp_path: Path) -> None:
    make_run("sweep/1", [40.0], seed=1, status="running", summary={"final_test_error": None})
    runs = collect([tmp_path / "runs"])
    archive.write(tmp_path / "kept" / "table1.jsonl", runs)
    archived = collect([tmp_path / "kept"])
    del runs[0].choices["hydra/launcher"]
    assert [contents(run) for run in archived] == [contents(run) for run in runs]
    assert archived[0].rows[2]["tiny"] == 5e-324
    assert archived[0].value("schedule") == "one_cycle"
    assert archived[0].layers("variance_factor")[0]["variance_factor"] == {"conv": 1.1}
    assert len(archived[0].timeline()) == 240


def test_archiving_an_archive_changes_nothing(full_run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    archive.write(first, collect([tmp_path / "runs"]))
    archive.write(second, archive.read(first))
    assert second.read_bytes() == first.read_bytes()


def test_joined_archives_are_an_archive(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(name, [50.0])
        archive.write(tmp_path / f"{name}.jsonl", collect([tmp_path / "runs" / name]))
    joined = (tmp_path / "a.jsonl").read_text() + (tmp_path / "b.jsonl").read_text()
    (tmp_path / "both.jsonl").write_text(joined)
    assert [run.name for run in archive.read(tmp_path / "both.jsonl")] == ["a", "b"]


def test_other_line_files_are_no_archives(full_run: Path, tmp_path: Path) -> None:
    assert not archive.is_archive(full_run / "metrics.jsonl")
    assert not archive.is_archive(full_run)
    archive.write(tmp_path / "kept.jsonl", [])
    assert archive.is_archive(tmp_path / "kept.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epoch": 1.0}\n', ":1: is not an archive of runs; allowed: files that"),
        ("", ":1: is not an archive of runs"),
        (HEADER.replace("1", "2"), ":1: version 2 of the format is unknown; allowed: 1"),
        (HEADER + RUN + '{"metrics": {"epo', ":3: is not JSON: "),
        (HEADER + RUN + "<<<<<<< HEAD\n", ":3: is not JSON: "),
        (HEADER + RUN + "[" * 99_999 + "\n", ":3: is nested too deep"),
        (
            HEADER + RUN + "[1]\n",
            ":3: is not a line of an archive; allowed: JSON objects that begin with archive, run, ",
        ),
        (HEADER + RUN + '{"weights": {}}\n', ":3: is not a line of an archive"),
        (HEADER + RUN + '{"metrics": 3}\n', ":3: metrics: is not one JSON object"),
        (HEADER + RUN + '{"metrics": {}, "layers": {}}\n', ":3: metrics: is not one JSON object"),
        (HEADER + '{"summary": {}}\n' + RUN, ":2: summary before the first run"),
        (HEADER + RUN + '{"summary": {"status": "x"}}\n' * 2, ":4: a second summary of a; allowed: one a run"),
        (HEADER + '{"run": "a", "config": []}\n', ":2: config: is unknown or of the wrong kind; allowed: run (str)"),
        (HEADER + '{"run": "a", "conf": {}}\n', ":2: conf: is unknown or of the wrong kind"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        archive.read(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)
