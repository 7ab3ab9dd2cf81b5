from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runner.report.collect import collect
from runner.report.evidence import measure_exhibit
from runner.report.glance import Central, central_claims
from runner.report.published import Cell, Claim, Exhibit

MakeRun = Callable[..., Path]
CELLS = [Cell("M=4", name, {"workers": 4, "algorithm": name}, 9.0) for name in ("asgd", "ssgd")]
BETTER = Claim("final_test_error[ssgd, M=4] < final_test_error[asgd, M=4]", "section 1", central="SSGD is better")
CLAIMS = [BETTER, Claim("final_test_error[asgd, M=4] < 5", "section 2"),
          Claim("seconds_to(1)[asgd, M=4] < 5", "section 3", central="ASGD is fast")]  # fmt: skip
TABLE = Exhibit("Someone, Some Thesis", "thesis", "table1", "Errors", "table 1", "table", "final_test_error", {}, {},
                ["M=4"], ["asgd", "ssgd"], CELLS, CLAIMS)  # fmt: skip
FIGURE = replace(TABLE, name="figure1", match={"model": "none"}, claims=[BETTER])


def found(make_run: MakeRun, top: Path, *scales: str | None) -> list[Central]:
    for number, scale in enumerate(scales):
        for seed in (0, 1, 2):
            # Of the second scale the order is the reverse.
            lower = 10.0 if number == 0 else -10.0
            for name, error in (("asgd", 31.0 + seed), ("ssgd", 31.0 + seed - lower)):
                make_run(f"{scale}/{name}/{seed}", [60.0, error], algorithm=name, seed=seed, config={"scale": scale})
    runs = collect([top / "runs"]) if scales else []
    return central_claims([(exhibit, measure_exhibit(exhibit, runs)) for exhibit in (TABLE, FIGURE)])


def test_short_runs_judge_a_central_claim(make_run: MakeRun, tmp_path: Path) -> None:
    better, fast = found(make_run, tmp_path, "short")
    assert (better.words, better.verdict, better.unmeasured) == ("SSGD is better", "holds", 1)
    assert [one.exhibit.name for one in better.judged] == ["table1"]
    assert (better.folder, better.commands) == ("thesis", ["dcrun experiment=thesis/figure1"])
    assert (fast.verdict, fast.judged, fast.unmeasured) == ("not measured", [], 1)


def test_paper_scale_counts_before_short(make_run: MakeRun, tmp_path: Path) -> None:
    (better, _) = found(make_run, tmp_path, "short", "paper")
    assert [one.block.scale for one in better.judged] == ["paper"]
    assert better.verdict == "fails"


def test_quick_and_own_settings_judge_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    assert [one.verdict for one in found(make_run, tmp_path, "quick", None)] == ["not measured"] * 2


def test_several_verdicts_are_counted(make_run: MakeRun, tmp_path: Path) -> None:
    (better, _) = found(make_run, tmp_path, "short")
    (other,) = (replace(one, verdict=replace(one.verdict, word="undecided")) for one in better.judged)
    assert replace(better, judged=[*better.judged, *better.judged, other]).verdict == "2 holds, 1 undecided"
