"""Measures the page of 1,000 runs: seconds until `dcreport` has written it, and until a browser has opened it.

    python benchmarks/page.py    # three minutes on two idle cores

The runs are written, not trained: 5 methods with 4 and 8 workers, 5 learning rates, 20 seeds, 200 evaluations each. The
command is run whole, its start counts. Opened means: from the navigation to the end of the load event, after which all
that is on the screen is drawn. Chromium is that of DCRUN_CHROMIUM or of the path; without it, or without Playwright,
opening is not measured.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from sidebyside import Row, main, sized

SEEDS, EVALUATIONS, ROUNDS = sized(20, 1), sized(200, 20), sized(5, 1)
METHODS = ("asgd", "ssgd", "dc_asgd_a", "dc_asgd_c", "local_sgd")
WORKERS, RATES = (4, 8), sized((0.05, 0.1, 0.2, 0.4, 0.8), (0.1, 0.2))
BUILT, OPENED = 20.0, 3.0
"""Seconds at most, on an idle machine."""


def write_run(folder: Path, method: str, workers: int, rate: float, seed: int) -> None:
    """Write what a run leaves behind that the page reads."""
    (folder / ".hydra").mkdir(parents=True)
    config: dict[str, Any] = {
        "seed": seed,
        "algorithm": {"_target_": f"algorithms.{method}", "momentum": 0.0},
        "cluster": {"kind": "simulated", "workers": workers, "compute": {f"option{k}": k for k in range(40)}},
        "schedule": {"kind": "constant", "lr": rate},
        "run": {"epochs": float(EVALUATIONS), "batch_size": 128, **{f"option{k}": None for k in range(40)}},
    }
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"algorithm={method}", f"schedule.lr={rate}"]))
    worse = METHODS.index(method) + 0.1 * seed + abs(rate - 0.2)
    lines = [
        {"epoch": k + 1.0, "samples": 1000 * (k + 1), "updates": 10 * (k + 1), "seconds": 8.0 * (k + 1) / workers,
         "train_loss": 2 / (k + 1), "train_error": 70 / (k + 1), "test_loss": 2 / (k + 1), "lr": rate,
         "test_error": 80 / (k + 1) + worse, "staleness_mean": workers - 1.0, "staleness_max": workers}
        for k in range(EVALUATIONS)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spans = [
        {"worker": worker, "what": "compute", "start": float(k), "end": k + 1.0}
        for k in range(50)
        for worker in range(4)
    ]
    (folder / "timeline.jsonl").write_text("".join(json.dumps(span) + "\n" for span in spans))
    (folder / "workers.json").write_text(json.dumps({"staleness": {str(k): 10 for k in range(workers)}}))
    last = lines[-1]
    error = last["test_error"]
    summary = {
        "status": "completed",
        "algorithm": method,
        "model": "resnet20",
        "dataset": "cifar10",
        "clock": "virtual",
        "cluster": "simulated",
        "workers": workers,
        "seed": seed,
        "wall_seconds": 60.0,
        "git_commit": "0" * 40,
        "epochs": last["epoch"],
        "seconds": last["seconds"],
        "samples": last["samples"],
        "final_test_error": error,
        "best_test_error": error,
        "final_train_loss": last["train_loss"],
    }
    (folder / "summary.json").write_text(json.dumps(summary))


def built(folder: Path) -> float:
    """Return the seconds that the command takes."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "runner.cli.dcreport", folder],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - begin


def opened(page: Path, rounds: int) -> list[float]:
    """Return the seconds until a browser has opened the page, of each round; empty without a browser."""
    chromium = os.environ.get("DCRUN_CHROMIUM") or shutil.which("chromium")
    if chromium is None or importlib.util.find_spec("playwright") is None:
        return []
    found = []
    # By name: it is an extra, and need not be there for whoever checks types.
    with importlib.import_module("playwright.sync_api").sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(rounds):
            tab = browser.new_page()
            tab.goto(page.as_uri(), timeout=120_000)
            found.append(tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
            tab.close()
        browser.close()
    return found


def measure() -> list[Row]:
    """Write the runs, build the page and open it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs"
        settings = list(itertools.product(METHODS, WORKERS, RATES, range(SEEDS)))
        for number, (method, workers, rate, seed) in enumerate(settings):
            write_run(folder / str(number), method, workers, rate, seed)
        times = [built(folder) for _ in range(ROUNDS)]
        page = folder / "report.html"
        note = f"page of {len(settings)} runs: {page.stat().st_size / 1e6:.1f} MB, the plot library in it"
        return [
            Row(f"dcreport on {len(settings)} runs", BUILT, times, at_least=False, unit="s", note=note),
            Row("opening their page", OPENED, opened(page, ROUNDS), at_least=False, unit="s"),
        ]


if __name__ == "__main__":
    main(measure)
