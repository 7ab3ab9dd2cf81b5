"""Every benchmark runs, cut to seconds by the small scale, and its figures are there. What they say is not judged."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
# What each benchmark measures: the beginnings of its rows, in order.
ROWS = {
    "allocator": ["ResNet-20, CIFAR-shaped: memory kept"],
    "clars": ["clars step"],
    "compute_processes": [
        *(f"dc_asgd_a, two processes / {other}" for other in ("one", "two", "a bare loop, one", "a bare loop, two")),
        *(f"{m}, two processes / {other}" for m in ("ssgd", "local_sgd") for other in ("one", "two")),
        "ddg in two modules, two processes / one",
    ],
    "dasgd": ["averaging step", "dasgd, d=1", "ssgd", "ssgd", "dasgd, d=1", "ssgd", "ssgd"],
    "dual": ["dfsdca, H=100:", "sdca, H=100:", "dfsdca, H=1000:", "sdca, H=1000:", "sdca: seconds"],
    "memory": ["weight vectors held by a simulation of 2 workers", "weight vectors held by 2 compute processes"],
    "messages": ["processes, empty gradients, 1 worker", "processes, empty gradients, 2 workers"],
    "page": ["dcreport on 20 runs", "opening their page"],
    "process_pipeline": ["bp on two processes", "ddg / bp", "fr / bp"],
    "startup": ["dcrun --help", "processor time of a run to its first bar / import torch", "a run's end"],
    "sweep": ["sweep of 2 jobs on digits", "the same on 4 MiB of data: peak memory"],
    "timing_only": [
        *(f"{name}, M={m}" for name in ("parameter server", "parameter server, gamma", "collective") for m in (8, 300)),
        *("shared memory, M=8", "pipeline, M=8", "parameter server, M=300, peak", "collective, M=300, peak"),
    ],
    "training": ["sgd through dcrun", "simulated dc_asgd_a"],
    "updates": [f"dc_asgd_{form} push, {mode}" for mode in ("uncompiled", "compiled") for form in "ca"],
}  # fmt: skip
PRINTED = {"faults", "fit", "reads", "run"}
"""Benchmarks that print tables of their own, each with a test below."""
ELSEWHERE = {"gpu"}
"""Benchmarks with a test file of their own."""
NUMBER = re.compile(r"\d+\.\d+")


def run(name: str, *arguments: str | Path, scale: str = "small") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent), "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    environment["DCRUN_BENCHMARK_SCALE"] = scale
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def check_rows(rows: list[dict[str, Any]], beginnings: list[str]) -> None:
    """Check that the rows are those expected and that each holds a figure."""
    assert len(rows) == len(beginnings), [row["what"] for row in rows]
    for row, beginning in zip(rows, beginnings, strict=True):
        assert row["what"].startswith(beginning)
        assert row["values"], f"{row['what']}: {row['note']}"
        assert all(math.isfinite(value) and value > 0 for value in row["values"])
        assert row["value"] > 0
        assert row["reached"] in (True, False)


def table_rows(text: str, beginning: str) -> list[list[float]]:
    """Return the numbers of every line of a printed table that begins so."""
    lines = [line.strip(" │┃") for line in text.splitlines()]
    return [
        [float(number) for number in NUMBER.findall(line.removeprefix(beginning))]
        for line in lines
        if line.startswith(beginning)
    ]


def test_every_benchmark_has_a_test() -> None:
    texts = {path.stem: path.read_text() for path in FOLDER.glob("*.py")}
    # One without a main is a part of another.
    scripts = {name for name, text in texts.items() if "sidebyside" in text and "__main__" in text} - {"sidebyside"}
    assert scripts == set(ROWS) | PRINTED | ELSEWHERE


def test_an_unknown_scale_is_refused() -> None:
    done = run("startup", scale="tiny")
    assert done.returncode == 2
    assert done.stderr == "DCRUN_BENCHMARK_SCALE=tiny: is not a scale; allowed: full, small\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_benchmark_yields_its_figures(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    done = run(name, "--json", path)
    assert done.returncode == 0, done.stderr
    check_rows(json.loads(path.read_text()), ROWS[name])


@pytest.mark.slow
def test_bench_collects_figures_and_machine(tmp_path: Path) -> None:
    done = run("run", "startup", "clars", "--outputs", tmp_path)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*/results.json")
    found = json.loads(path.read_text())
    assert found["scale"] == "small"
    assert found["seconds"] > 0
    assert list(found["benchmarks"]) == ["startup", "clars"]
    for name, rows in found["benchmarks"].items():
        check_rows(rows, ROWS[name])
        assert table_rows(done.stdout, rows[0]["what"])[0][0] > 0


@pytest.mark.slow
def test_reads_prints_every_operator() -> None:
    done = run("reads")
    assert done.returncode == 0, done.stderr
    for operator in ("copy", "mul(g, g, out=block)", "sub(w, bak, out=block)", "ms.lerp_(block)", "w.add_(block)"):
        [(speed, nanoseconds, _)] = table_rows(done.stdout, operator)
        assert speed > 0
        assert nanoseconds > 0


@pytest.mark.slow
def test_fit_prints_every_recording() -> None:
    done = run("fit")
    # The exit code is 1 where a median is off, which a recording of a second may well be.
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout.count(" 1: measured ") == 3
    for run_of in ("resnet20, 4 workers on this machine", "mlp, 4 workers, gamma delays", "mlp, 4 workers, one slow"):
        rows = [row[-5:-2] for row in table_rows(done.stdout, run_of) if len(row) >= 5]
        assert len(rows) == 2, "a fitted model, and the measured seconds themselves"
        for measured, simulated, ratio in rows:
            assert measured > 0
            assert simulated > 0
            assert ratio == pytest.approx(simulated / measured, abs=0.01 + 0.01 * ratio)


@pytest.mark.slow
def test_faults_counts_what_was_survived(tmp_path: Path) -> None:
    path = tmp_path / "tries.jsonl"
    done = run("faults", "--only", "damaged_trace", "--only", "killed_computing", "--outputs", path)
    assert done.returncode == 0, done.stdout + done.stderr
    tries = {line["fault"]: line for line in map(json.loads, path.read_text().splitlines())}
    assert set(tries) == {"damaged_trace", "killed_computing"}
    assert all(line["survived"] and line["lost"] == 0 for line in tries.values())
    assert tries["killed_computing"]["seconds"] > 0
    assert "2 faults, 0 hangs, 0 not as they should be" in done.stdout
