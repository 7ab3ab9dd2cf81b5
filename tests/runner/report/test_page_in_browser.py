"""The page in a real browser. `make test-browser` installs what is needed; without it these are skipped."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cli.dcreport import main

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -e .[browser]")
CHROMIUM = os.environ.get("DCRUN_CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium, or set DCRUN_CHROMIUM"),
]
MakeRun = Callable[..., Path]
EVIL = "<b>evil</b><img src=x onerror=alert(1)>"
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
  const inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const covers = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  const hidden = [];
  for (const figure of document.querySelectorAll("[data-figure]")) {
    const frame = figure.getBoundingClientRect();
    if (frame.width === 0) continue;
    for (const panel of figure.querySelectorAll(".panel")) {
      const box = panel.getBoundingClientRect();
      const title = panel.querySelector(".title");
      if (!title.textContent || title.scrollWidth > title.clientWidth + 1 || !inside(title.getBoundingClientRect(), box))
        hidden.push(`title ${title.textContent} is cut off`);
      const texts = [...panel.querySelectorAll("svg text")].filter((text) => text.getBoundingClientRect().width > 0);
      for (const text of texts) {
        const place = text.getBoundingClientRect();
        if (!inside(place, box)) hidden.push(`${text.textContent} leaves its panel`);
        for (const other of texts) {
          // A star may lie on the end of a curve, not a text on a text.
          if (other === text || text.textContent === "★" || other.textContent === "★") continue;
          if (covers(place, other.getBoundingClientRect())) hidden.push(`${text.textContent} lies over ${other.textContent}`);
        }
      }
    }
    for (const item of figure.querySelectorAll(".legend li"))
      if (item.checkVisibility() && !inside(item.getBoundingClientRect(), frame)) hidden.push(`${item.textContent} is cut off`);
  }
  return hidden;
}"""
OPEN_ALL = "for (const part of document.querySelectorAll('details')) part.open = true; drawAll();"
CURVES = "(id) => document.getElementById(id).data.filter((trace) => trace.meta === 'curve')"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def report(make_run: MakeRun, tmp_path: Path) -> Path:
    number, folder = 0, tmp_path
    for algorithm, worse in (("sgd", 0.0), ("asgd", 4.0), ("ssgd", 3.0), ("dc_asgd_c", 2.0), ("dc_asgd_a", 1.0)):
        for workers in (1,) if algorithm == "sgd" else (4, 8):
            for seed in (0, 1, 2):
                errors: list[float | None] = [80 / k + worse + 0.3 * seed + 0.1 * workers for k in range(1, 11)]
                config = {"algorithm.lambda0": {"dc_asgd_c": 0.04, "dc_asgd_a": 2.0}.get(algorithm, 0.0)}
                config |= {"algorithm.m": 0.95} if algorithm == "dc_asgd_a" else {}
                seconds = 100.0 / workers * (1.2 if algorithm == "ssgd" else 1.0)
                folder = make_run(
                    f"sweep/{number}", errors, algorithm=algorithm, workers=workers, seed=seed, seconds=seconds,
                    config=config | {"scale": "quick"},
                )  # fmt: skip
                number += 1
    spans = [
        {"worker": worker, "what": what, "start": 2.0 * k + low, "end": 2.0 * k + high}
        for k in range(8)
        for worker in range(4)
        for what, low, high in (("compute", 0.0, 1.4), ("transfer", 1.4, 1.6), ("wait", 1.6, 2.0))
    ]
    (folder / "timeline.jsonl").write_text("".join(json.dumps(span) + "\n" for span in spans))
    (folder / "workers.json").write_text(json.dumps({"staleness": {"6": 10, "7": 70, "8": 20}}))
    make_run("strange", [50.0, 49.0], algorithm=EVIL, model="mlp", dataset="digits", status="running")
    (make_run("broken", [50.0]) / "summary.json").write_text("{")
    assert main([str(tmp_path / "runs")]) == 0
    return tmp_path / "runs" / "report.html"


@pytest.fixture
def visit(browser, report: Path) -> Iterator[Callable[..., object]]:
    opened, said = [], []

    def go(width: int = 1280, scheme: str = "light", address: str | None = None) -> object:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or said.append(f"asked for {request.url}"))
        page.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
        page.goto(address or report.as_uri())
        opened.append(page)
        return page

    yield go
    for page in opened:
        page.close()
    assert [text for text in said if not text.startswith(("asked for data:", "asked for blob:"))] == []


def column(page, name: str) -> list[str]:
    place = page.eval_on_selector_all("#table th", "(all, n) => all.findIndex((h) => h.dataset.column === n)", name)
    return page.eval_on_selector_all("#table tbody tr", "(rows, n) => rows.map((r) => r.cells[n].textContent)", place)


def test_the_result_stands_first(visit) -> None:
    """What is seen of the page without scrolling: the answer, the ranks, and the curves in the methods' colours."""
    page = visit()
    assert page.inner_text("#setting-1 .answer").startswith("sgd M=1 is best with 8.40 ± 0.30 % test error (3 seeds)")
    assert page.locator("#setting-1 .answer").bounding_box()["y"] < 450
    rows = page.locator("#setting-1 .ranked tbody tr").all_inner_texts()
    assert [row.split()[1] for row in rows] == ["sgd", "dc_asgd_a", "dc_asgd_c", "ssgd", "asgd"]
    assert "clear" in rows[0]
    plot = page.locator("#setting-1 .plot").first
    plot.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#setting-1 .plot').data")
    drawn = page.evaluate("document.querySelector('#setting-1 .plot').data.map((trace) => [trace.meta, trace.name])")
    assert sorted(name for kind, name in drawn if kind == "curve") == [
        "asgd M=4", "dc_asgd_a M=4", "dc_asgd_c M=4", "sgd M=1", "ssgd M=4",
    ]  # fmt: skip
    assert sum(kind == "band" for kind, _ in drawn) == 5
    labels = plot.locator(".annotation text").all_inner_texts()
    assert {"sgd M=1", "asgd M=4", "dc_asgd_a M=4"} <= set(labels), "each curve has its name at its end"
    strokes = [page.evaluate("([row]) => row.querySelector('line').getAttribute('stroke')", [row.element_handle()])
               for row in page.locator("#setting-1 .ranked tbody tr").all()]  # fmt: skip
    colors = page.evaluate(
        "Object.fromEntries(document.querySelector('#setting-1 .plot').data.filter((t) => t.meta === 'curve').map((t) => [t.name.split(' ')[0], t.line.color]))"
    )  # noqa: E501
    assert strokes == [colors[row.split()[1]] for row in rows], "a method's colour in the table is its curve's"


def test_figures_are_drawn(visit) -> None:
    page = visit()
    page.evaluate(OPEN_ALL)
    assert page.locator("#papers .js-plotly-plot .scatterlayer .trace").count() > 30
    assert len(page.evaluate(CURVES, "plot")) == 12
    assert page.locator("#table tbody tr").count() == 29
    page.select_option("#run", str(page.evaluate("DATA.runs.findIndex((run) => run.timeline.length > 0)")))
    assert page.locator("#timeline .bars .point").count() == 96
    assert page.locator("#staleness .bars .point").count() == 3
    assert "holds" in page.inner_text("#papers .claims >> nth=0")
    stars = page.locator("#papers .annotation text", has_text="★")
    assert stars.count() > 3
    assert page.get_by_text("published end point, at the paper's own length").first.is_visible()
    # A run without spans has no plot of them.
    page.select_option("#run", "0")
    assert page.is_hidden("#timeline")


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
    assert "3" in column(page, "time_to")
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
    page.locator("#table tbody input").first.press("Space")
    assert len(page.evaluate(CURVES, "plot")) == before - 1
    page.click("#all")
    assert len(page.evaluate(CURVES, "plot")) == 29
    page.check("#seeds")
    assert len(page.evaluate(CURVES, "plot")) == 11
    assert page.evaluate("document.getElementById('plot').data.filter((t) => t.meta === 'band').length") == 9
    page.click("#none")
    assert page.is_hidden("#plot")


def test_colors_stay_when_the_table_is_sorted(visit) -> None:
    page = visit()
    colors = "() => Object.fromEntries(document.getElementById('plot').data.filter((t) => t.meta === 'curve').map((t) => [t.name, t.line.color]))"  # noqa: E501
    before = page.evaluate(colors)
    page.locator('th[data-column="final_test_error"] button').click()
    page.locator('th[data-column="final_test_error"] button').click()
    after = page.evaluate(colors)
    assert before == after
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
    assert "They part at row 1, after 1.0 effective passes: test error, % 81.40 and 82.40" in page.inner_text("#part")
    assert len(page.evaluate(CURVES, "both")) == 2
    page.select_option("#second", first)
    assert "Choose two runs." in page.inner_text("#part")


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


def test_html_in_names_is_escaped(visit) -> None:
    page = visit()
    assert page.locator("img").count() == 0
    page.fill("#filter", "evil")
    page.click("#all")
    assert EVIL.split("<")[1].partition(">")[2] in page.text_content("#plot")
    assert "<b>" in page.text_content("#plot")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(visit, width: int, scheme: str) -> None:
    page = visit(width, scheme)
    assert page.evaluate("document.documentElement.scrollHeight") < (9_000 if width == 1280 else 14_000)
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    least, where = page.evaluate(CONTRAST)
    assert least >= 4.5, where
    if folder := os.environ.get("DCRUN_SCREENSHOTS"):
        page.set_viewport_size({"width": width, "height": 1200})
        page.screenshot(path=Path(folder) / f"report-{width}-{scheme}.png")


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
