"""The page's table of runs, their curves, and the comparison of two, in a real browser."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cli.dcreport import main
from tests.page_visit import COLORS, CURVES, EVIL, IN_BROWSER, column

MakeRun = Callable[..., Path]
pytestmark = IN_BROWSER


def test_table_sorts_and_filters(visit) -> None:
    page = visit()
    button = page.locator('th[data-column="final_test_error"] button')
    button.click()
    values = [float(text) for text in column(page, "final_test_error") if text != "–"]
    assert values == sorted(values)
    button.press("Enter")
    values = [float(text) for text in column(page, "final_test_error") if text != "–"]
    assert values == sorted(values, reverse=True)
    assert page.get_attribute('th[data-column="final_test_error"]', "aria-sort") == "descending"
    page.fill("#filter", "dc_asgd_a seed=1")
    assert set(column(page, "algorithm")) == {"dc_asgd_a"}
    assert page.inner_text("#count") == "2 of 29 runs"
    page.fill("#filter", "")
    page.select_option("#status", "running")
    assert column(page, "algorithm") == [EVIL]
    page.select_option("#status", "")
    page.fill("#target", "30")
    page.locator("#target").blur()
    assert "3.0" in column(page, "time_to")
    assert "–" in column(page, "time_to")


def test_curves_follow_the_controls(visit) -> None:
    page = visit()
    title = "document.getElementById('plot').layout.{}axis.title.text"
    page.select_option("#metric", "train_loss")
    assert page.evaluate(title.format("y")) == "training loss"
    page.select_option("#axis", "virtual_seconds")
    assert page.evaluate(title.format("x")) == "virtual seconds"
    page.check("#log-y")
    assert page.evaluate("document.getElementById('plot').layout.yaxis.type") == "log"
    before = len(page.evaluate(CURVES, "plot"))
    # Of the first, whose summary is broken, the clock is unknown, so that it has no virtual seconds.
    page.locator("#table tbody input:checked").first.press("Space")
    assert len(page.evaluate(CURVES, "plot")) == before - 1
    page.click("#all")
    assert "1 of those ticked have no training loss against virtual seconds." in page.inner_text("#curves-note")
    page.select_option("#axis", "epoch")
    assert len(page.evaluate(CURVES, "plot")) == 29
    page.check("#seeds")
    assert len(page.evaluate(CURVES, "plot")) == 11
    assert page.evaluate("document.getElementById('plot').data.filter((t) => t.meta === 'band').length") == 9
    page.click("#none")
    assert page.is_hidden("#plot")


def test_colors_stay_when_the_table_is_sorted(visit) -> None:
    page = visit()
    before = dict(page.evaluate(COLORS, "#plot"))
    page.locator('th[data-column="final_test_error"] button').click()
    page.locator('th[data-column="final_test_error"] button').click()
    assert dict(page.evaluate(COLORS, "#plot")) == before
    assert len({value for name, value in before.items() if name.startswith("sgd ")}) == 1


def test_the_address_keeps_what_was_chosen(visit, browser) -> None:
    page = visit()
    page.fill("#filter", "asgd")
    page.select_option("#metric", "train_loss")
    page.check("#seeds")
    page.locator('th[data-column="workers"] button').click()
    page.select_option("#second", "5")
    again = visit(address=page.url)
    assert again.input_value("#filter") == "asgd"
    assert again.input_value("#metric") == "train_loss"
    assert again.is_checked("#seeds")
    assert again.input_value("#second") == "5"
    assert again.get_attribute('th[data-column="workers"]', "aria-sort") == "ascending"
    assert again.inner_text("#count") == page.inner_text("#count")


def test_two_runs_are_compared(visit) -> None:
    page = visit()
    first, second = (
        page.evaluate("(words) => String(DATA.runs.findIndex((run) => run.search.includes(words)))", words)
        for words in ("dc_asgd_a m=4", "dc_asgd_c m=4")
    )
    page.select_option("#first", first)
    page.select_option("#second", second)
    told = page.inner_text("#differences")
    assert "algorithm.lambda0" in told
    assert "schedule.lr" not in told, "what both share is no difference"
    part = page.inner_text("#part")
    assert "They part at row 1, after 1.0 effective passes: " in part
    assert "test error, % 81.40 and 82.40" in part
    assert len(page.evaluate(CURVES, "both")) == 2
    page.select_option("#second", first)
    assert "Choose two runs." in page.inner_text("#part")


def mean_of(browser, tmp_path: Path) -> tuple[str, list[float], list[float]]:
    """Name, x and y of the mean over the seeds as the page draws it."""
    assert main([str(tmp_path / "runs")]) == 0
    page = browser.new_page()
    page.goto((tmp_path / "runs" / "report.html").as_uri())
    page.click("#all")
    page.check("#seeds")
    [line] = [[curve["name"], curve["x"], curve["y"]] for curve in page.evaluate(CURVES, "plot")]
    page.close()
    return tuple(line)


def test_mean_takes_each_ended_seed_once(browser, make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", [60.0], status="interrupted", config={"run.epochs": 3.0})
    make_run("b", [60.0, 30.0, 10.0])
    make_run("c", [60.0, 30.0, 12.0], seed=1)
    make_run("d", [60.0, 30.0, 12.0], seed=1)
    assert mean_of(browser, tmp_path) == ("asgd M=4 (2 seeds)", [1, 2, 3], [60, 30, 11])


def test_mean_is_at_common_evaluations(browser, make_run: MakeRun, tmp_path: Path) -> None:
    # The longer run is thinned, and keeps the rows that the other has.
    for seed, (every, count) in enumerate([(0.5, 100), (0.02, 2500)]):
        errors: list[float | None] = [80 / (1 + every * k) for k in range(1, count + 1)]
        make_run(str(seed), errors, seed=seed, every=every, config={"run.epochs": 50.0})
    name, x, y = mean_of(browser, tmp_path)
    assert (name, x) == ("asgd M=4 (2 seeds)", [k / 2 for k in range(1, 101)])
    assert y == pytest.approx([80 / (1 + passes) for passes in x], rel=1e-4)
