"""The page in a real browser: what is seen first, that nothing is cut off, and that all of it can be reached."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.cli.dcreport import main
from tests.page_visit import COLORS, CURVES, EVIL, IN_BROWSER, OPEN_ALL, column

MakeRun = Callable[..., Path]
pytestmark = IN_BROWSER
# The darkest contrast of any text with what lies behind it (WCAG 2): relative luminances of the computed colours.
CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => color.slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const shown = walker.currentNode.textContent.trim() && node.checkVisibility();
    if (!shown || node.closest("script, style, svg, option")) continue;
    const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < least[0]) least = [contrast, node.outerHTML.slice(0, 200)];
  }
  for (const node of document.querySelectorAll("svg text")) {
    const [a, b] = [luminance(parse(getComputedStyle(node).fill)), luminance(behind(document.body))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < least[0] && node.textContent.trim()) least = [contrast, node.outerHTML.slice(0, 200)];
  }
  return least;
}"""
# Titles, labels and legends of figures that are not wholly seen: cut off by their figure, or over another text.
HIDDEN_TEXTS = """() => {
  const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1
    && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const covers = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  const hidden = [];
  for (const figure of document.querySelectorAll("[data-figure]")) {
    const frame = figure.getBoundingClientRect();
    if (frame.width === 0) continue;
    for (const panel of figure.querySelectorAll(".panel")) {
      const box = panel.getBoundingClientRect();
      const title = panel.querySelector(".title");
      const whole = title.textContent && title.scrollWidth <= title.clientWidth + 1;
      if (!whole || !inside(title.getBoundingClientRect(), box))
        hidden.push(`title ${title.textContent} is cut off`);
      const texts = [...panel.querySelectorAll("svg text")].filter((text) => text.getBoundingClientRect().width > 0);
      for (const text of texts) {
        const place = text.getBoundingClientRect();
        if (!inside(place, box)) hidden.push(`${text.textContent} leaves its panel`);
        for (const other of texts) {
          // A star may lie on the end of a curve, not a text on a text.
          if (other === text || text.textContent === "★" || other.textContent === "★") continue;
          if (covers(place, other.getBoundingClientRect()))
            hidden.push(`${text.textContent} lies over ${other.textContent}`);
        }
      }
    }
    for (const item of figure.querySelectorAll(".legend li"))
      if (item.checkVisibility() && !inside(item.getBoundingClientRect(), frame))
        hidden.push(`${item.textContent} is cut off`);
  }
  return hidden;
}"""


def test_the_result_stands_first(visit) -> None:
    """What is seen of the page without scrolling: the answer, the ranks, and the curves in the methods' colours."""
    page = visit()
    # A value stays on the line of its deviation.
    told = page.inner_text("#setting-1 .answer").replace("\u00a0", " ")
    assert told.startswith("sgd M=1 is best with 8.40 ± 0.30 % test error (3 seeds)")
    assert page.locator("#setting-1 .answer").first.bounding_box()["y"] < 450
    rows = page.locator("#setting-1 .ranked tbody tr").all_inner_texts()
    assert [row.split()[1] for row in rows] == ["sgd", "dc_asgd_a", "dc_asgd_c", "ssgd", "asgd"]
    assert "clear" in rows[0]
    plot = page.locator("#setting-1 .plot").first
    plot.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#setting-1 .plot').data")
    drawn = page.evaluate("document.querySelector('#setting-1 .plot').data.map((trace) => [trace.meta, trace.name])")
    assert sorted(name for kind, name in drawn if kind == "curve") == [
        "asgd", "dc_asgd_a", "dc_asgd_c", "sgd M=1", "ssgd",
    ]  # fmt: skip
    assert sum(kind == "band" for kind, _ in drawn) == 5
    labels = plot.locator(".annotation text").all_text_contents()
    assert {"sgd M=1", "asgd", "dc_asgd_a"} <= set(labels), "each curve has its name at its end"
    marked = "[...document.querySelectorAll('#setting-1 .ranked svg line')].map((l) => l.getAttribute('stroke'))"
    colors = {name.split()[0]: value for name, value in page.evaluate(COLORS, "#setting-1 .plot")}
    strokes = page.evaluate(marked)
    assert strokes == [colors[row.split()[1]] for row in rows], "a method's colour in the table is its curve's"


def test_figures_are_drawn(visit) -> None:
    page = visit()
    page.evaluate(OPEN_ALL)
    assert page.locator("#papers .js-plotly-plot .scatterlayer .trace").count() > 30
    assert len(page.evaluate(CURVES, "plot")) == 12
    assert page.locator("#table tbody tr").count() == 29
    page.select_option("#run", str(page.evaluate("DATA.runs.findIndex((run) => detailsOf(run).timeline.length > 0)")))
    assert page.locator("#timeline .bars .point").count() == 96
    assert page.locator("#staleness .bars .point").count() == 3
    assert "holds" in page.inner_text("#papers .claims >> nth=0")
    stars = page.locator("#papers .annotation text", has_text="★")
    assert stars.count() > 3
    assert page.get_by_text("published end point, at the paper's own length").first.is_visible()
    # A run without spans has no plot of them.
    page.select_option("#run", "0")
    assert page.is_hidden("#timeline")


def test_tables_and_plots_can_be_taken_along(visit) -> None:
    page = visit()

    def taken(button) -> bytes:
        with page.expect_download() as waiting:
            button.click()
        return waiting.value.path().read_bytes()

    table = taken(page.locator("#setting-1 .below button").first).decode().splitlines()
    assert table[0].startswith("rank,method,")
    assert len(table) == 6
    caption = page.locator("#setting-1 figcaption").first
    points = taken(caption.get_by_text("CSV")).decode().splitlines()
    assert points[0] == 'curve,effective passes,"test error, %",mean - deviation,mean + deviation'
    assert len(points) == 1 + 5 * 10
    assert taken(caption.get_by_text("PNG")).startswith(b"\x89PNG")
    assert b"sgd M=1" in taken(caption.get_by_text("SVG"))
    assert len(taken(page.locator("#runs .below button")).decode().splitlines()) == 30


def test_html_in_names_is_escaped(visit) -> None:
    page = visit()
    assert page.locator("img").count() == 0
    page.fill("#filter", "evil")
    page.click("#all")
    # Too long for a label at the curve's end, so that it is in the legend; for Plotly, which reads HTML, it is escaped.
    assert EVIL in page.text_content("#curves .legend")
    assert page.evaluate(CURVES, "plot")[0]["name"].startswith("&lt;b&gt;evil")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(visit, width: int, scheme: str) -> None:
    page = visit(width, scheme)
    assert page.evaluate("document.documentElement.scrollHeight") < (9_000 if width == 1280 else 14_000)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    least, where = page.evaluate(CONTRAST)
    assert least >= 4.5, where


@pytest.mark.parametrize("width", [390, 1280])
def test_titles_and_labels_are_whole(visit, width: int) -> None:
    page = visit(width)
    page.evaluate(OPEN_ALL)
    assert page.locator("[data-figure] figcaption").count() > 10
    assert page.evaluate(HIDDEN_TEXTS) == []
    # Headings break between words: no line is one word's end.
    assert page.evaluate("getComputedStyle(document.querySelector('h3')).overflowWrap") == "break-word"


def test_numbers_are_aligned_and_ticks_have_no_prefixes(browser, make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        for method, scale in (("svrg", 1.0), ("asysvrg", 3.0)):
            folder = make_run(f"{method}{seed}", [0.0] * 6, algorithm=method, seed=seed, workers=2)
            lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
            for place, line in enumerate(lines):
                # On the second evaluation the deviation is more than the mean.
                line["suboptimality"] = scale * 10.0 ** -(place + 2) * (1 + (1 + 20 * (place == 1)) * seed)
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main([str(tmp_path / "runs")]) == 0
    page = browser.new_page()
    page.goto((tmp_path / "runs" / "report.html").as_uri())
    page.evaluate("drawAll()")
    plot = "document.querySelector('#setting-1 .plot')"
    assert page.evaluate(f"{plot}.layout.yaxis.type") == "log"
    ticks = page.locator("#setting-1 .plot >> nth=0").locator(".ytick text").all_text_contents()
    assert len(ticks) > 3
    assert not [text for text in ticks if any(prefix in text for prefix in "nµmkp")], ticks
    lowest = page.evaluate(f"Math.min(...{plot}.data.filter((t) => t.meta === 'band').flatMap((t) => t.y))")
    assert lowest > 0, "a band goes to the lowest seed, not to the floor"
    assert set(column(page, "virtual_seconds")) == {"60.0"}
    page.close()


def test_keyboard_reaches_everything(visit) -> None:
    page = visit()
    # The link before the table leads past its rows.
    page.focus("#past")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "metric"
    page.fill("#filter", "evil")
    page.focus("nav a")
    reached = set()
    for _ in range(260):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    wanted = {"filter", "status", "target", "metric", "axis", "log-x", "log-y", "all", "none", "run", "SUMMARY"}
    assert wanted <= reached


def test_plots_are_drawn_when_they_come_near(visit) -> None:
    page = visit(scrolled=False)
    assert page.evaluate("document.getElementById('both').dataset.painted") is None
    page.locator("#compare-title").scroll_into_view_if_needed()
    page.wait_for_function("document.getElementById('both').data")
    assert page.locator("#both").is_visible()


def processor_seconds(browser, folder: Path, runs: int) -> float:
    """Return the processor's seconds that the page of so many runs takes to open: what else runs is left out."""
    page = browser.new_page()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto((folder / "report.html").as_uri(), timeout=120_000)
    assert page.locator("#table tbody tr").count() == runs
    spent = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    page.close()
    return spent["TaskDuration"]


@pytest.mark.slow
def test_ten_times_the_runs_open_in_ten_times(browser, make_run: MakeRun, tmp_path: Path) -> None:
    seconds = {}
    for runs in (100, 1000):
        for number in range(0 if runs == 100 else 100, runs):
            errors: list[float | None] = [90.0 / (k + number % 7 + 1) for k in range(200)]
            make_run(str(number), errors, workers=4 + 4 * (number % 2), seed=number // 2)
        assert main([str(tmp_path / "runs")]) == 0
        seconds[runs] = processor_seconds(browser, tmp_path / "runs", runs)
    assert 0 < seconds[1000] < 10 * seconds[100], seconds
