"""A browser, a report of many runs, and a page that nobody may complain about."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.cli.dcreport import main
from tests.page_visit import CHROMIUM, EVIL
from tests.runner.conftest import runs_below


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -e .[browser]")
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page that every test may look at: none of them changes it."""
    tmp_path = tmp_path_factory.mktemp("report")
    make_run = runs_below(tmp_path)
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

    def go(width: int = 1280, scheme: str = "light", address: str | None = None, *, scrolled: bool = True) -> object:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or said.append(f"asked for {request.url}"))
        page.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
        page.goto(address or report.as_uri())
        if scrolled:
            # As for a reader who has been through the page: plots are drawn when they come near.
            page.evaluate("drawAll()")
        opened.append(page)
        return page

    yield go
    for page in opened:
        page.close()
    assert [text for text in said if not text.startswith(("asked for data:", "asked for blob:"))] == []
