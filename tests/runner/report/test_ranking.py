from collections.abc import Callable
from pathlib import Path

import pytest

from runner.report.collect import collect
from runner.report.ranking import ALONE, CLEAR, EQUAL, UNDECIDED, Ranking, rankings

MakeRun = Callable[..., Path]


def ranked(tmp_path: Path) -> list[Ranking]:
    return rankings(collect([tmp_path / "runs"]))


def seeds(make_run: MakeRun, algorithm: str, errors: list[float], **options: object) -> None:
    for seed, error in enumerate(errors):
        make_run(
            f"{algorithm}{options.get('workers', 4)}/{seed}", [60.0, error], algorithm=algorithm, seed=seed, **options
        )


def test_lowest_mean_error_is_first(make_run: MakeRun, tmp_path: Path) -> None:
    seeds(make_run, "asgd", [30.0, 32.0])
    seeds(make_run, "ssgd", [20.0, 22.0])
    (found,) = ranked(tmp_path)
    assert [row.name for row in found.rows] == ["ssgd", "asgd"]
    assert (found.rows[0].mean, found.rows[0].spread) == (21.0, pytest.approx(2**0.5))
    assert found.best is found.rows[0]
    assert found.title == "resnet20 on cifar10 · M=4 · 2 effective passes"


@pytest.mark.parametrize(
    ("other", "word", "mean"),
    [
        # Far apart, yet the seeds of both vary alike: paired, the difference hardly does.
        ([31.0, 41.1, 51.0], CLEAR, 1.0333),
        ([33.0, 39.0, 51.0], UNDECIDED, 1.0),
        ([30.0, 40.0, 50.0], EQUAL, 0.0),
        ([31.0], ALONE, 1.0),
    ],
)
def test_gap_is_paired_by_seed(make_run: MakeRun, tmp_path: Path, other: list[float], word: str, mean: float) -> None:
    seeds(make_run, "asgd", [30.0, 40.0, 50.0][: len(other)])
    seeds(make_run, "ssgd", other)
    gap = ranked(tmp_path)[0].rows[0].gap
    assert gap is not None
    assert (gap.word, gap.seeds) == (word, len(other))
    assert gap.mean == pytest.approx(mean, abs=1e-3)


def test_a_method_with_a_lost_seed_is_not_ranked(make_run: MakeRun, tmp_path: Path) -> None:
    """The seed that did not diverge is the lucky one."""
    seeds(make_run, "asgd", [30.0, 32.0])
    make_run("ssgd/0", [60.0, 10.0], algorithm="ssgd")
    make_run("ssgd/1", [60.0, None], algorithm="ssgd", seed=1, status="diverged")
    seeds(make_run, "dasgd", [40.0, 41.0])
    (found,) = ranked(tmp_path)
    assert [row.name for row in found.rows] == ["asgd", "dasgd", "ssgd"]
    assert found.rows[2].statuses == "1 of 2 seeds; diverged"
    assert found.best is found.rows[0]
    assert found.rows[1].gap is None, "nothing is ahead of what is not ranked"


def test_unlike_problems_are_ranked_apart(make_run: MakeRun, tmp_path: Path) -> None:
    seeds(make_run, "asgd", [30.0])
    make_run("b", [60.0, 31.0], algorithm="ssgd", config={"dataset.limit_train": 2000})
    make_run("c", [60.0, 31.0], algorithm="ssgd", model="mlp")
    make_run("d", [60.0, 50.0, 31.0], algorithm="ssgd")
    found = ranked(tmp_path)
    assert [[row.method for row in one.rows] for one in found] == [["asgd"], ["ssgd"], ["ssgd"], ["ssgd"]]
    assert any("limit_train=2000" in one.detail for one in found)


def test_numbers_of_workers_are_settings_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    """One worker's run is the baseline of both."""
    for workers in (4, 8):
        seeds(make_run, "asgd", [30.0 + workers], workers=workers)
        seeds(make_run, "ssgd", [31.0 + workers], workers=workers)
    seeds(make_run, "sgd", [20.0], workers=1)
    found = {one.title.split(" · ")[1]: [row.name for row in one.rows] for one in ranked(tmp_path)}
    assert found == {"M=4": ["sgd M=1", "asgd", "ssgd"], "M=8": ["sgd M=1", "asgd", "ssgd"]}


def test_workers_of_one_method_are_rows(make_run: MakeRun, tmp_path: Path) -> None:
    for workers in (2, 4, 8):
        seeds(make_run, "asgd", [30.0 + workers], workers=workers)
    (found,) = ranked(tmp_path)
    assert [row.name for row in found.rows] == ["asgd M=2", "asgd M=4", "asgd M=8"]


def test_names_have_what_tells_rows_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [40.0], config={"algorithm.lambda0": 0.5}, algorithm="dc_asgd_a")
    make_run("b", [30.0], config={"algorithm.lambda0": 2.0}, algorithm="dc_asgd_a")
    make_run("c", [35.0], config={"algorithm.tau": 7, "cluster.kind": "simulated"})
    make_run("d", [36.0], config={"algorithm.tau": 7, "schedule.kind": "multistep"}, algorithm="ssgd")
    names = [row.name for row in ranked(tmp_path)[0].rows]
    assert names == [
        "dc_asgd_a lambda0=2 schedule=constant",
        "asgd schedule=constant",
        "ssgd schedule=multistep",
        "dc_asgd_a lambda0=0.5 schedule=constant",
    ]


def test_seeds_of_two_versions_are_one_row(make_run: MakeRun, tmp_path: Path) -> None:
    """A key that came later keeps no run apart from those that have it, unless these differ in it."""
    make_run("a", [30.0])
    make_run("b", [32.0], seed=1, config={"algorithm.nesterov": False, "cluster.network.latency": 0.0})
    (found,) = ranked(tmp_path)
    assert [len(row.runs) for row in found.rows] == [2]
    make_run("c", [33.0], seed=1, config={"algorithm.nesterov": True, "cluster.network.latency": 0.0})
    assert sum(len(row.runs) for one in ranked(tmp_path) for row in one.rows) == 3
    assert len(ranked(tmp_path)[0].rows) == 3


def test_the_validation_split_ranks(make_run: MakeRun, tmp_path: Path) -> None:
    def chosen(validation: float, test: float) -> dict[str, float]:
        return {"best_validation_error": validation, "test_error_at_best_validation": test}

    make_run("a", [30.0], summary=chosen(20.0, 25.0))
    make_run("b", [20.0], summary=chosen(25.0, 19.0), algorithm="ssgd")
    (found,) = ranked(tmp_path)
    assert (found.metric, found.beside) == ("best_validation_error", "test_error_at_best_validation")
    assert [row.method for row in found.rows] == ["asgd", "ssgd"]


def test_equal_errors_leave_ranking_to_the_loss(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [0.0], summary={"final_train_loss": 2.0})
    make_run("b", [0.0], summary={"final_train_loss": 1.0}, algorithm="ssgd")
    (found,) = ranked(tmp_path)
    assert (found.metric, found.rows[0].method) == ("final_train_loss", "ssgd")


def test_seconds_are_kept_by_clock(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [30.0], seconds=10.0)
    make_run("b", [31.0], seed=1, seconds=30.0, summary={"clock": "measured"})
    assert ranked(tmp_path)[0].rows[0].seconds() == {"virtual": 10.0, "measured": 30.0}


def test_a_long_list_leads_with_each_methods_best(make_run: MakeRun, tmp_path: Path) -> None:
    for place in range(8):
        make_run(f"a{place}", [30.0 + place], config={"schedule.lr": 0.1 + place})
        make_run(f"s{place}", [30.5 + place], config={"schedule.lr": 0.1 + place}, algorithm="ssgd")
    (found,) = ranked(tmp_path)
    assert len(found.rows) == 16
    assert [row.name for row in found.leading()] == ["asgd lr=0.1", "ssgd lr=0.1"]
    gap = found.leading()[0].gap
    assert gap is not None
    assert gap.mean == 0.5


def test_settings_with_more_seeds_come_first(make_run: MakeRun, tmp_path: Path) -> None:
    seeds(make_run, "asgd", [30.0])
    seeds(make_run, "ssgd", [31.0])
    for seed in (0, 1):
        for method in ("asgd", "ssgd"):
            make_run(f"z{method}{seed}", [30.0 + seed], algorithm=method, seed=seed, dataset="mnist")
    assert [found.title.split(" · ")[0] for found in ranked(tmp_path)] == ["resnet20 on mnist", "resnet20 on cifar10"]


def test_equal_means_are_level(make_run: MakeRun, tmp_path: Path) -> None:
    """Of 360 images 21 are wrong with both, 5 + 5 + 11 and 5 + 8 + 8: the means in percent differ in their last bit."""
    seeds(make_run, "ssgd", [100 * wrong / 360 for wrong in (5, 5, 11)])
    seeds(make_run, "asgd", [100 * wrong / 360 for wrong in (5, 8, 8)])
    (found,) = ranked(tmp_path)
    means = [row.mean for row in found.rows]
    assert None not in means
    assert means[0] != means[1]
    assert [row.name for row in found.rows] == ["asgd", "ssgd"], "in the order of the folders"
    gap = found.rows[0].gap
    assert gap is not None
    assert (gap.mean, gap.word) == (0.0, UNDECIDED)
