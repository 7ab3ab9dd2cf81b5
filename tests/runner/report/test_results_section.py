from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report.collect import collect
from runner.report.curves import Curve
from runner.report.page_data import POINTS
from runner.report.ranking import Ranking, rankings
from runner.report.results_section import answer, figure, section, thin

MakeRun = Callable[..., Path]


def ranking(make_run: MakeRun, tmp_path: Path, **better: list[float]) -> Ranking:
    for method, errors in better.items():
        for seed, error in enumerate(errors):
            make_run(f"{method}/{seed}", [60.0, error], algorithm=method, seed=seed)
    (found,) = rankings(collect([tmp_path / "runs"]))
    return found


@pytest.mark.parametrize(
    ("errors", "beginning", "end"),
    [
        ([20.0, 20.4, 20.2], "ssgd is best with 20.20 ± 0.20", "ahead of asgd by 10.00 ± 0.00: clear"),
        ([29.0, 31.0, 30.0], "ssgd is best with 30.00 ± 1.00", "ahead of asgd by 0.20 ± 0.80: undecided"),
        ([30.0, 30.4, 30.2], "asgd is best with 30.20 ± 0.20", "as is ssgd"),
    ],
)  # fmt: skip
def test_the_answer_is_a_sentence(
    make_run: MakeRun, tmp_path: Path, errors: list[float], beginning: str, end: str
) -> None:
    told = answer(ranking(make_run, tmp_path, asgd=[30.0, 30.4, 30.2], ssgd=errors))
    assert told.startswith(f"{beginning} % test error (3 seeds), {end}")


def test_one_seed_decides_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    told = answer(ranking(make_run, tmp_path, asgd=[30.0], ssgd=[31.0]))
    assert told == "asgd is best with 30.00 % test error (one seed), ahead of ssgd by 1.00: one seed decides nothing."


def test_rows_have_time_by_its_clock(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [30.0], seconds=2000.0)
    make_run("b", [31.0], algorithm="ssgd", summary={"clock": "measured", "bytes_sent": 2_500_000})
    (found,) = rankings(collect([tmp_path / "runs"]))
    made = section(found, 1)
    assert made["clocks"] == ["measured", "virtual"]
    assert [row["seconds"] for row in made["rows"]] == [["–", "2,000"], ["10", "–"]]
    assert [row["sent"] for row in made["rows"]] == ["–", "2.5 MB"]
    drawn = figure(found, 1)
    assert drawn is not None
    assert [panel.x for panel in drawn.panels] == ["effective passes", "measured seconds", "virtual seconds"]
    assert [[curve.name for curve in panel.curves] for panel in drawn.panels] == [["asgd", "ssgd"], ["ssgd"], ["asgd"]]


def test_colors_do_not_follow_the_ranks(make_run: MakeRun, tmp_path: Path) -> None:
    """The same methods, first this one and then the other in front."""
    found = []
    for place, errors in enumerate(([30.0, 20.0], [20.0, 30.0])):
        for method, error in zip(("asgd", "ssgd"), errors, strict=True):
            make_run(f"{place}/{method}", [error], algorithm=method)
        (one,) = rankings(collect([tmp_path / "runs" / str(place)]))
        found.append([(row["method"], row["color"]) for row in section(one, 1)["rows"]])
    assert found[0] == found[1][::-1]


def test_long_curves_keep_their_ends() -> None:
    many = [float(k) for k in range(3000)]
    curve = thin(Curve("a", 0, many, many, many, None, many))
    assert len(curve.x) == len(curve.spread) == len(curve.least) == POINTS
    assert (curve.x[0], curve.x[-1]) == (0.0, 2999.0)


def test_the_baseline_of_one_worker_has_no_rivals(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("sgd", [60.0, 10.0], algorithm="sgd", workers=1)
    told = answer(ranking(make_run, tmp_path, asgd=[30.0], ssgd=[31.0]))
    assert told.startswith("sgd M=1 is best with 10.00 % test error (one seed), ahead of asgd by 20.00: ")
    assert "Of several workers, asgd is best with 30.00 % test error (one seed), ahead of ssgd by 1.00: " in told


def test_level_methods_share_their_rank(make_run: MakeRun, tmp_path: Path) -> None:
    found = ranking(make_run, tmp_path, asgd=[30.0, 31.0], ssgd=[31.0, 30.0], dasgd=[40.0, 40.0])
    assert [(row["method"], row["place"], row["best"]) for row in section(found, 1)["rows"]] == [
        ("asgd", 1, True), ("ssgd", 1, True), ("dasgd", 3, False),
    ]  # fmt: skip
    assert answer(found).endswith("level with ssgd: seed by seed they differ by 0.00 ± 1.41.")


def test_seconds_of_a_column_have_equal_decimals(make_run: MakeRun, tmp_path: Path) -> None:
    for method, seconds in (("asgd", 4.4444), ("ssgd", 10.278), ("dasgd", 9.5)):
        make_run(method, [30.0], algorithm=method, seconds=seconds)
    (found,) = rankings(collect([tmp_path / "runs"]))
    assert sorted(row["seconds"][0] for row in section(found, 1)["rows"]) == ["10.28", "4.44", "9.50"]


def test_an_axis_is_logarithmic_beside_a_run_that_takes_far_longer(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("sgd", [60.0, 30.0], algorithm="sgd", workers=1, seconds=80.0)
    for method in ("asgd", "ssgd"):
        make_run(method, [60.0, 30.5], algorithm=method, seconds=10.0)
    (found,) = rankings(collect([tmp_path / "runs"]))
    drawn = figure(found, 1)
    assert drawn is not None
    assert [panel.log_x for panel in drawn.panels] == [False, True]
