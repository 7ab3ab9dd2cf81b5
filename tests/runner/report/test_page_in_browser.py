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
# Titles of panels and legends of figures that are not wholly seen: cut off by the figure's box, wider than their panel,
# or over another text. Each panel's axes are the rectangle that Plotly drags in.
HIDDEN_TEXTS = """() => {
  const inside = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
  const covers = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const hidden = [];
  for (const figure of document.querySelectorAll("[data-figure]")) {
    const box = figure.getBoundingClientRect();
    const axes = [...figure.querySelectorAll(".nsewdrag")].map((node) => node.getBoundingClientRect());
    const titles = [...figure.querySelectorAll(".annotation text")];
    if (titles.length !== axes.length) hidden.push(`${titles.length} titles of ${axes.length} panels`);
    titles.forEach((title, at) => {
      const place = title.getBoundingClientRect();
      const above = { left: axes[at].left, right: axes[at].right, top: box.top, bottom: axes[at].top };
      if (!inside(place, above)) hidden.push(`${title.textContent} is cut off`);
    });
    const texts = [...figure.querySelectorAll("svg text")].filter((text) => text.getBoundingClientRect().width > 0);
    for (const text of [...titles, ...figure.querySelectorAll(".legendtext")]) {
      const place = text.getBoundingClientRect();
      if (!inside(place, box)) hidden.push(`${text.textContent} leaves its figure`);
      for (const other of texts) {
        if (other === text || !covers(place, other.getBoundingClientRect())) continue;
        hidden.push(`${text.textContent} lies over ${other.textContent}`);
      }
    }
  }
  return hidden;
}"""


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

    def go(width: int = 1280, scheme: str = "light") -> object:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or said.append(f"asked for {request.url}"))
        page.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
        page.goto(report.as_uri())
        opened.append(page)
        return page

    yield go
    for page in opened:
        page.close()
    assert [text for text in said if not text.startswith("asked for data:")] == []


def column(page, name: str) -> list[str]:
    place = page.eval_on_selector_all("#table th", "(all, n) => all.findIndex((h) => h.dataset.column === n)", name)
    return page.eval_on_selector_all("#table tbody tr", "(rows, n) => rows.map((r) => r.cells[n].textContent)", place)


def test_figures_are_drawn(visit) -> None:
    page = visit()
    assert page.locator("#papers .js-plotly-plot .scatterlayer .trace").count() > 30
    assert page.locator("#plot .scatterlayer .trace").count() == 12
    assert page.locator("#table tbody tr").count() == 29
    page.select_option("#run", str(page.evaluate("DATA.runs.findIndex((run) => run.timeline.length > 0)")))
    assert page.locator("#timeline .bars .point").count() == 96
    assert page.locator("#staleness .bars .point").count() == 3
    assert "holds" in page.inner_text("#papers .claims")


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
    page.select_option("#axis", "seconds")
    assert page.evaluate(title.format("x")) == "seconds"
    page.check("#log-y")
    assert page.evaluate("document.getElementById('plot').layout.yaxis.type") == "log"
    before = page.locator("#plot .scatterlayer .trace").count()
    page.locator("#table tbody input").first.press("Space")
    assert page.locator("#plot .scatterlayer .trace").count() == before - 1
    page.click("#all")
    assert page.locator("#plot .scatterlayer .trace").count() == 29
    page.check("#seeds")
    assert page.locator("#plot .scatterlayer .trace").count() == 11
    page.click("#none")
    assert page.is_hidden("#plot")


def mean_of(browser, tmp_path: Path) -> tuple[str, list[float], list[float]]:
    """Name, x and y of the mean over the seeds as the page draws it."""
    assert main([str(tmp_path / "runs")]) == 0
    page = browser.new_page()
    page.goto((tmp_path / "runs" / "report.html").as_uri())
    page.click("#all")
    page.check("#seeds")
    [line] = page.evaluate("document.getElementById('plot').data.map((line) => [line.name, line.x, line.y])")
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
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    least, where = page.evaluate(CONTRAST)
    assert least >= 4.5, where
    if folder := os.environ.get("DCRUN_SCREENSHOTS"):
        page.set_viewport_size({"width": width, "height": 1200})
        page.screenshot(path=Path(folder) / f"report-{width}-{scheme}.png")


@pytest.mark.parametrize("width", [390, 1280])
def test_titles_of_panels_are_whole(visit, width: int) -> None:
    page = visit(width)
    assert page.locator("[data-figure] .annotation").count() > 10
    assert page.evaluate(HIDDEN_TEXTS) == []


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
    for _ in range(160):
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
