import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report.collect import collect

MakeRun = Callable[..., Path]


def test_a_finished_run_is_read(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a/0", [50.0, 40.0], algorithm="dc_asgd_a", seed=3, config={"algorithm.lambda0": 2.0})
    (run,) = collect([tmp_path / "runs"])
    assert (run.name, run.status, run.seed, run.problems) == ("a/0", "completed", 3, [])
    assert run.curve("test_error") == [50.0, 40.0]
    assert run.value("algorithm.lambda0") == 2.0
    assert run.value("algorithm") == "dc_asgd_a"
    assert run.value("cluster") == "simulated"
    assert run.value("no.such.key") is None


def test_run_whose_last_line_is_torn(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a", [50.0, 40.0], status="running", summary={"final_test_error": None})
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3.0, "test_er')
    (run,) = collect([tmp_path])
    assert (run.status, len(run.rows), run.problems) == ("running", 2, [])


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    (run,) = collect([tmp_path])
    assert run.status == "broken"
    assert "summary.json: is missing" in run.problems


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", ".hydra/config.yaml", ".hydra/overrides.yaml"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\x00\xff\xfe", b"[1, 2]\n", b'"text"\n', b"null\n", b"[" * 99_999, b"{a: [}\n", b"a: ${b.c}\n"],
    ids=["empty", "cut", "binary", "list", "text", "null", "deep", "no yaml", "interpolation"],
)  # fmt: skip
def test_no_broken_file_breaks_the_others(make_run: MakeRun, tmp_path: Path, name: str, content: bytes) -> None:
    (make_run("broken", [50.0]) / name).write_bytes(content)
    make_run("whole", [30.0])
    broken, whole = collect([tmp_path / "runs"])
    assert (whole.problems, whole.curve("test_error")) == ([], [30.0])
    # Whatever is asked of the broken one has an answer.
    assert isinstance(broken.status, str)
    assert broken.value("schedule.lr") in (0.5, None)
    assert all(isinstance(problem, str) for problem in broken.problems)


def test_lines_that_cannot_be_read_are_counted(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a", [50.0])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('garbage\n{"epoch": 2.0, "test_error": NaN}\n')
    (run,) = collect([tmp_path])
    assert run.problems == ["metrics.jsonl: 1 line cannot be read"]
    assert run.curve("test_error") == [50.0, None]


def test_timeline_is_read_as_shown(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("a", [50.0])
    span = {"worker": 0, "what": "compute", "start": 0.0, "end": 1.0}
    (folder / "timeline.jsonl").write_text("".join(json.dumps(span) + "\n" for _ in range(5000)))
    (run,) = collect([tmp_path])
    assert run.timeline() == [span] * 240
    assert run.workers() == {}


FILES = [
    "summary.json",
    "metrics.jsonl",
    ".hydra/config.yaml",
    ".hydra/overrides.yaml",
    "timeline.jsonl",
    "workers.json",
]


@pytest.mark.parametrize("name", FILES)
def test_pipes_are_not_opened(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    path = make_run("a", [50.0]) / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    (run,) = collect([tmp_path])
    run.workers()
    run.timeline()
    if name in FILES[:3]:
        assert f"{path.name}: is not a plain file" in run.problems


def test_yaml_that_unfolds_without_end_is_a_problem(make_run: MakeRun, tmp_path: Path) -> None:
    levels = "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    (make_run("a", [50.0]) / ".hydra" / "config.yaml").write_text(f"a: &a [x, x]\n{levels}")
    (run,) = collect([tmp_path])
    assert run.problems == ["config.yaml: has more than 20 YAML aliases"]
