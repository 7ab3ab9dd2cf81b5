from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from runner.report import wandb_table
from runner.report.sweep_end import print_evidence, print_result

MakeRun = Callable[..., Path]


def told(tmp_path: Path) -> str:
    out = StringIO()
    console = Console(file=out, width=140)
    print_result(console, sorted((tmp_path / "runs").iterdir()))
    return out.getvalue()


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


def test_methods_are_ranked_as_on_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, own in enumerate((0.0, 2.0)):
        make_run(f"asgd{seed}", [30.0 + own], seed=seed)
        make_run(f"ssgd{seed}", [20.0 + own + 0.1 * seed], seed=seed, algorithm="ssgd", seconds=2000.0)
    text = told(tmp_path)
    assert "resnet20 on cifar10 · M=4 · 1 effective passes (simulated)" in text
    assert "virtual s" in text, "virtual seconds are not those that the sweep took"
    assert rows(text) == [
        ["1", "ssgd", "21.05 ± 1.48", "2", "9.95 ± 0.07 clear", "2,000"],
        ["2", "asgd", "31.00 ± 1.41", "2", "", "10"],
    ]
    assert "ssgd is best with 21.05 ± 1.48 % test error (2 seeds), ahead of asgd by 9.95 ± 0.07: clear" in text


def test_bytes_stand_beside_the_seconds(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("asgd", [30.0])
    make_run("ssgd", [20.0], algorithm="ssgd", summary={"bytes_sent": 3_000_000})
    assert [row[-1] for row in rows(told(tmp_path))] == ["3 MB", "–"]


def test_a_single_run_is_ranked_with_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [30.0])
    make_run("b", [30.0], model="mlp", status="failed", summary={"final_test_error": None})
    assert told(tmp_path) == ""


def test_runs_that_all_diverged_are_said_to_have(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [90.0, 90.0], status="diverged")
    make_run("b", [90.0], algorithm="ssgd", status="diverged")
    make_run("c", [], algorithm="sgd", status="failed")
    line = "none of the 3 runs came to its end (2 diverged, 1 failed): there is nothing to rank"
    assert " ".join(told(tmp_path).split()) == line


def test_seeds_that_diverged_are_counted(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [30.0])
    # It has an error, as of a loss that exploded.
    make_run("b", [20.0], seed=1, status="diverged")
    make_run("c", [31.0], algorithm="ssgd")
    assert [row[1] for row in rows(told(tmp_path))] == ["ssgd", "asgd"], "what is left of asgd is the lucky part"
    assert "1 of 2 seeds; diverged" in told(tmp_path)


@pytest.mark.parametrize(("scale", "difference"), [("quick", False), ("short", True)])
def test_an_experiment_ends_with_the_paper_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: str, difference: bool
) -> None:
    cells = [
        ["4 passes", "M=4", "ASGD", 64.0, 0.57, 3, 0, 9.27, 54.73],
        ["4 passes", "M=4", "DNI", None, None, 0, 1, None, None],
    ]
    claims = [
        ["4 passes", "error[ASGD] < 9", "", "table 1", word, "because"] for word in ("holds", "fails", "undecided")
    ]
    known = {"table1/table": (wandb_table._CELLS, cells), "table1/claims": (wandb_table._CLAIMS, claims)}
    asked: list[object] = []
    monkeypatch.setattr(wandb_table, "evaluated", lambda *given: asked.append(given) or known)
    out = StringIO()
    print_evidence(Console(file=out, width=140), "paper/table1", scale, tmp_path / "sweep", [tmp_path / "sweep" / "0"])
    text = out.getvalue()
    assert asked == [("paper/table1", tmp_path, {tmp_path / "sweep" / "0"})]
    assert [row[:5] for row in rows(text)] == [
        ["4 passes", "M=4", "ASGD", "64.00 ± 0.57", "9.27"],
        ["", "M=4", "DNI", "–", "–"],
    ]
    assert ("+54.73" in text) == difference, "at quick scale orders are compared, not numbers"
    assert "claims of the paper: 1 holds, 1 fails, 1 undecided" in text
    assert "holds error[ASGD] < 9: because" in text
    assert "undecided error" not in text
