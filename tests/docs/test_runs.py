"""The runs in docs/runs, on which the pages of results stand, can be repeated: their code is that of a commit."""

from pathlib import Path

from runner.report import archive, provenance

RUNS = Path(__file__).resolve().parents[2] / "docs" / "runs"


def test_archived_runs_are_of_a_commit() -> None:
    archives = {str(path.relative_to(RUNS).with_suffix("")): archive.read(path) for path in RUNS.glob("*/*.jsonl")}
    assert archives
    assert not {name for name, runs in archives.items() if provenance.uncommitted(runs)}
