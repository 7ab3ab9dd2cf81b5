"""What pages of runs were once seen to get wrong, each looked for in a real browser."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.cli.dcreport import main
from runner.report.page import LIBRARY
from tests.page_visit import CURVES, IN_BROWSER, OPEN_ALL, column
from tests.runner.conftest import runs_below

Visit = Callable[..., Any]
pytestmark = IN_BROWSER
REMARK = "Whoever reads this knows why the *seed* matters."
# Words of headings that stand on two lines, although they would fit on one.
BROKEN_WORDS = """() => [...document.querySelectorAll("h1, h2, h3, h4, figcaption .title")].flatMap((heading) => {
  const broken = [];
  const walker = document.createTreeWalker(heading, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    for (const found of walker.currentNode.textContent.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(walker.currentNode, found.index);
      range.setEnd(walker.currentNode, found.index + found[0].length);
      const lines = new Set([...range.getClientRects()].map((place) => Math.round(place.top)));
      if (lines.size > 1) broken.push(found[0]);
    }
  }
  return broken;
})"""


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two clocks and lengths, of a swept rate, of one evaluation alone, and of a number without decimals."""
    place = tmp_path_factory.mktemp("mixed")
    make_run = runs_below(place)
    for method, worse in (("asgd", 0.0), ("ssgd", 3.0)):
        for rate in (0.1, 0.25):
            for seed in (0, 1, 2):
                errors: list[float | None] = [80 / k + worse + 10 * rate + 0.123 * seed for k in range(1, 11)]
                # Epochs end at whole batches.
                config = {"schedule.lr": rate, "run.epochs": 10.0, "scale": "quick"}
                make_run(
                    f"virtual/{method}{rate}{seed}", errors, algorithm=method, seed=seed, seconds=123.4567,
                    every=1.0002, config=config,
                )  # fmt: skip
        for seed in (0, 1):
            make_run(
                f"measured/{method}{seed}", [60.0, 40.0 + worse + seed], algorithm=method, seed=seed, seconds=2.5,
                config={"cluster.kind": "processes"}, summary={"clock": "measured", "cluster": "processes"},
            )  # fmt: skip
            make_run(f"once/{method}{seed}", [50.0 + worse + seed], algorithm=method, seed=seed, model="mlp")
            gap = 14050.0 + 100 * worse + 547.6 * seed
            make_run(
                f"large/{method}{seed}", [None], algorithm=method, seed=seed, model="convex", dataset="a9a",
                summary={"final_suboptimality": gap, "final_test_error": None, "best_test_error": None},
            )  # fmt: skip
    notes = place / "notes.md"
    notes.write_text(f"# Notes\n\n## dc_asgd_icml2017/table1\n\n{REMARK}\n\n## Afterwards\n\nNobody asked for this.\n")
    assert main([str(place / "runs"), "--notes", str(notes), "--library", "beside"]) == 0
    return place / "runs" / "report.html"


@pytest.fixture
def page(visit: Visit, mixed: Path) -> Any:
    return visit(address=mixed.as_uri())


def setting(page: Any, *words: str) -> Any:
    """Return the article of the one setting whose heading and detail have these words."""
    found = page.locator("article[id^=setting-]")
    for word in words:
        found = found.filter(has_text=word)
    assert found.count() == 1
    return found


def text_of(page: Any) -> str:
    return page.evaluate("document.body.innerText").replace("\u00a0", " ")


def test_titles_tell_panels_apart(visit: Visit) -> None:
    """Whole titles, so that M=4 is told from M=8."""
    page = visit()
    page.evaluate(OPEN_ALL)
    titles = page.locator("[data-figure] figcaption .title")
    assert {"M=4", "M=8"} <= set(titles.all_inner_texts())
    cut = titles.evaluate_all("(all) => all.filter((t) => t.scrollWidth > t.clientWidth + 1).map((t) => t.textContent)")
    assert cut == []


def test_every_mean_has_its_spread(page: Any) -> None:
    values = page.locator(".ranked tbody tr td:nth-child(3)").all_inner_texts()
    assert len(values) == 4 + 2 + 2 + 2
    assert [value for value in values if " ± " not in value] == []
    page.check("#seeds")
    drawn = page.evaluate("document.getElementById('plot').data.map((trace) => trace.meta)")
    assert drawn.count("band") == drawn.count("curve") == 4


def test_clocks_have_columns_of_their_own(page: Any) -> None:
    heads = {clock: setting(page, clock).locator("thead").inner_text() for clock in ("simulated, quick", "processes")}
    assert "virtual s" in heads["simulated, quick"]
    assert "measured s" not in heads["simulated, quick"]
    assert "measured s" in heads["processes"]
    assert "virtual s" not in heads["processes"]
    virtual, measured = column(page, "virtual_seconds"), column(page, "measured_seconds")
    assert {"1,234.8", "–"} <= set(virtual)
    assert set(measured) == {"5.0", "–"}
    assert [pair for pair in zip(virtual, measured, strict=True) if "–" not in pair] == []
    axis = setting(page, "processes").locator("figcaption .title").all_inner_texts()
    assert axis == ["against effective passes", "against measured seconds"]


def test_stars_stand_beside_the_axes(visit: Visit) -> None:
    """A paper's end point is none of ours at our last evaluation, and the legend says what it is."""
    page = visit()
    page.evaluate(OPEN_ALL)
    places = page.evaluate("""() => [...document.querySelectorAll("#papers .plot")].flatMap((plot) => {
      const edge = plot.querySelector(".nsewdrag")?.getBoundingClientRect().right;
      return [...plot.querySelectorAll(".annotation text")].filter((text) => text.textContent === "★")
        .map((star) => star.getBoundingClientRect().left - edge);
    })""")
    assert len(places) > 3
    assert min(places) > 0
    legends = page.locator("#papers .has-stars .legend")
    assert legends.count() > 0
    for legend in legends.all():
        assert legend.get_by_text("★ published end point").is_visible()


def test_what_was_varied_is_on_the_screen(page: Any) -> None:
    head = page.locator('#table th[data-column="schedule.lr"]')
    assert head.inner_text().replace("\n", "") == "schedule.lr"
    place = head.bounding_box()
    assert place["x"] + place["width"] < 1280, "without scrolling to the right"
    error = page.locator('#table th[data-column="final_test_error"]').bounding_box()
    assert error["x"] + error["width"] < 1280, "and neither is the result pushed away"
    assert page.locator('#table th[data-column="schedule.lr"] + th').count() == 1
    rows = page.locator(".ranked tbody th").all_inner_texts()
    assert any("lr=0.25" in row for row in rows)


def test_digits_of_a_column_are_as_many(page: Any) -> None:
    for name in ("final_test_error", "best_test_error", "virtual_seconds", "final_train_loss", "epochs"):
        decimals = {len(text.partition(".")[2]) for text in column(page, name) if text != "–"}
        assert len(decimals) == 1, name
    for table in page.locator(".ranked").all():
        rows = [row.locator("td, th").all_inner_texts() for row in table.locator("tbody tr").all()]
        for cells in zip(*rows, strict=True):
            numbers = [cell for cell in cells if re.fullmatch(r"[\d,.]+( ± [\d,.]+)?", cell)]
            assert len({tuple(map(len, re.findall(r"\.(\d+)", number))) for number in numbers}) <= 1, numbers


def test_no_number_is_hard_to_read(page: Any) -> None:
    page.evaluate(OPEN_ALL)
    told = text_of(page)
    assert "14,050 ± 0" not in told
    assert "14,324 ± 387" in told
    assert re.findall(r"\d(?:\.\d+)?e\+\d+", told) == [], "no exponents of large numbers"
    assert re.findall(r"\d+\.\d{2,} effective passes", told) == [], "ten passes, not 10.002"
    assert "10 effective passes" in told


def test_the_clusters_kind_is_said_once(page: Any) -> None:
    assert "kind=" not in text_of(page)
    assert "kind=" not in page.evaluate("DATA.runs.map((run) => run.label).join()")


def test_a_run_without_spans_has_no_timeline(page: Any) -> None:
    assert page.is_hidden("#timeline")
    assert page.get_by_text("What each worker did at the beginning").is_hidden()


def test_a_timeline_says_what_its_colors_are(visit: Visit) -> None:
    page = visit()
    page.select_option("#run", str(page.evaluate("DATA.runs.findIndex((run) => detailsOf(run).timeline.length > 0)")))
    words = page.locator("#timeline .legendtext")
    assert words.all_text_contents() == ["compute", "transfer", "wait"]
    assert page.locator("#timeline .xtitle").text_content() == "virtual seconds"
    top = page.locator("#timeline .bars").first.bounding_box()["y"]
    for word in words.all():
        assert word.is_visible()
        place = word.bounding_box()
        assert place["y"] + place["height"] <= top, "above the bars"


def test_no_legend_lies_on_an_axis(visit: Visit) -> None:
    page = visit(390)
    page.evaluate(OPEN_ALL)
    found = page.evaluate("""() => [...document.querySelectorAll(".legend")].filter((shown) => shown.checkVisibility())
      .map((legend) => [legend.getBoundingClientRect().top, ...[...legend.parentNode.querySelectorAll("svg .xtitle")]
        .map((title) => title.getBoundingClientRect().bottom)])""")
    assert len(found) > 3
    assert [places for places in found if places[0] < max(places[1:])] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_headings_break_between_words(visit: Visit, mixed: Path, width: int) -> None:
    for address in (None, mixed.as_uri()):
        page = visit(width, address=address)
        page.evaluate(OPEN_ALL)
        assert page.evaluate(BROKEN_WORDS) == []


def test_quick_scale_shows_no_differences(page: Any) -> None:
    page.evaluate(OPEN_ALL)
    assert "compare orders, not numbers" in page.inner_text("#papers")
    blocks = page.locator("#papers .block").filter(has_text="Quick scale").locator(".cells").all_inner_texts()
    assert any("paper " in block for block in blocks), "the published numbers stand there"
    assert re.findall(r"[+−]\d+\.\d\d", " ".join(blocks)) == []


def test_a_curve_of_one_point_has_a_marker(page: Any) -> None:
    found = setting(page, "mlp on cifar10")
    found.scroll_into_view_if_needed()
    page.wait_for_function("(id) => document.querySelector(`#${id} .plot`).data", arg=found.get_attribute("id"))
    points = found.locator(".plot").first.locator(".point")
    assert points.count() == 2
    assert points.first.bounding_box()["width"] >= 6
    left, right = (point.bounding_box()["x"] for point in points.all())
    assert right > left + 20, "beside each other, not at the one place that both have"
    assert found.locator(".plot").first.locator(".errorbar").count() == 2


def test_the_library_is_no_part_of_a_small_page(page: Any, mixed: Path) -> None:
    assert mixed.stat().st_size < 500_000
    assert (mixed.parent / LIBRARY).stat().st_size > 1_000_000
    assert page.is_hidden("#no-plots")
    assert page.evaluate(CURVES, "plot")


def test_remarks_are_on_the_page(page: Any) -> None:
    page.evaluate(OPEN_ALL)
    assert page.locator("#papers .remark em", has_text="seed").is_visible()
    assert "Nobody asked for this." in page.inner_text("#remarks")
    assert page.locator("nav a", has_text="Remarks").is_visible()


def test_colors_are_the_methods_everywhere(page: Any) -> None:
    """In each setting's curves, in its table, and in the table of runs."""
    page.evaluate("drawAll()")
    pairs = page.evaluate("""() => [...document.querySelectorAll("#result .plot")].flatMap((plot) => (plot.data || [])
      .filter((trace) => trace.meta === "curve").map((trace) => [trace.name.split(" ")[0], trace.line.color]))""")
    assert {name for name, _ in pairs} == {"asgd", "ssgd"}
    assert len({tuple(pair) for pair in pairs}) == 2, "whichever is best, and in whichever setting"


def test_no_curve_of_an_unlike_problem_is_beside(page: Any) -> None:
    shown = page.evaluate("[...state.shown].map((at) => RUNS[at].fields.model + RUNS[at].fields.cluster)")
    assert len(set(shown)) == 1
    page.click("#all")
    assert "unlike problems" in page.inner_text("#curves-note")


def test_a_log_axis_has_whole_numbers(page: Any) -> None:
    page.check("#log-y")
    page.check("#log-x")
    for axis in ("x", "y"):
        ticks = page.locator(f"#plot .{axis}tick text").all_text_contents()
        assert len(ticks) >= 3
        assert [text for text in ticks if not re.fullmatch(r"[\d,.]+", text)] == []
        numbers = [float(text.replace(",", "")) for text in ticks]
        assert numbers == sorted(numbers), "500 after 200 and 100, not 5 after 2 and 100"


def test_the_contents_say_where_the_reader_is(page: Any) -> None:
    page.evaluate("document.getElementById('runs').scrollIntoView()")
    page.wait_for_function("document.querySelector('nav [aria-current]')?.hash === '#runs'")
    place = page.locator("nav").bounding_box()
    assert 0 <= place["y"] < 10, "and stay in sight"


def test_a_legend_goes_when_labels_have_room_again(visit: Visit) -> None:
    page = visit(390)
    page.locator("#setting-1 .plot").first.scroll_into_view_if_needed()
    legend = page.locator("#setting-1 .legend")
    legend.wait_for(state="visible")
    page.set_viewport_size({"width": 1280, "height": 900})
    legend.wait_for(state="hidden")


def test_long_names_leave_the_numbers_on_a_narrow_screen(visit: Visit, mixed: Path) -> None:
    page = visit(390, address=mixed.as_uri())
    page.evaluate(
        "for (const one of document.querySelectorAll('.ranked .apart')) one.textContent = 'key=value '.repeat(9)"
    )
    for row in page.locator("#result .ranked tbody tr").all():
        value = row.locator("td").nth(1).bounding_box()
        assert value["x"] + value["width"] <= 390


def test_facts_are_whole_on_a_narrow_screen(visit: Visit, mixed: Path) -> None:
    page = visit(390, address=mixed.as_uri())
    region = page.locator(".wide:has(#facts)")
    assert region.evaluate("(own) => own.scrollWidth - own.clientWidth") <= 1
