"""Training on one GPU: `python benchmarks/gpu.py`, under nine minutes; without a GPU one line says that there is none.

ResNet-20 on CIFAR-shaped images, batches of 128, augmented, all in one process and in turn, with the same precision:

    (a) a bare eager PyTorch loop           (b) the same with torch.compile(mode="reduce-overhead")
    (c) dcrun's `sgd`                       (d) dcrun's simulated `dc_asgd_a` with 8 workers

dcrun's sides are whole runs with run folder and display, once with its defaults (the step a CUDA graph) and once with
`run.compile=true` (the captured step is compiled as well). The targets are for the latter, as (b) is compiled too. As
in `summary.json`, samples/s leave evaluation and checkpoints out; the clock stops when the GPU is done.

It also measures what several gradients at a time gain (`gpu_workers.py`): two compute processes on one GPU, one on each
GPU if there are several, and all workers' gradients in one batched call; server updates on 25.6 million weights beside
a plain copy; how far a step is from its lower bounds, launches and bytes that must move (`floors.py`); and the peak
memory of simulations of up to 32 workers. The tables go to the terminal. After each part they also go, with the values
of every round and the facts of the machine, to `outputs/benchmarks/<date>_<time>_gpu/results.json`. A part that fails
(its compiler is missing), or for which the nine minutes leave no time, is named as not measured, and the others go on.
The exit code is 0, whatever they show.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import as_in_dcrun  # noqa: E402, F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import floors  # noqa: E402
import gpu_workers  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from sidebyside import Row, Side, in_turn, pace, ratios, show  # noqa: E402
from subject import build_components, run  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from algorithms.base import Step  # noqa: E402
from algorithms.dc_asgd import DCASGDAdaptive, DCASGDConstant  # noqa: E402
from data.augment import PadCrop  # noqa: E402
from runner.run_folder import machine  # noqa: E402
from runner.train.build import RunComponents  # noqa: E402
from runner.train.network import build_module  # noqa: E402


@dataclass(frozen=True)
class Plan:
    """What is measured, and how long.

    Attributes:
        device: run.device.
        precision: run.precision.
        model: the network.
        batch: samples of a gradient.
        steps: gradients of a side in a round.
        rounds: rounds, at most.
        seconds: after so many no round of the training begins; the updates take a quarter of them.
        limit: seconds after which nothing new begins.
        weights: elements of the updates' vectors.
        repeats: updates of a side in a round.
        workers: sizes of the simulations whose memory is measured.
    """

    device: str = "cuda"
    precision: str = "tf32"
    model: str = "resnet20"
    batch: int = 128
    steps: int = 200
    rounds: int = 20
    seconds: float = 120.0
    limit: float = 450.0
    weights: int = 25_600_000
    repeats: int = 50
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32)

    def subject(self, *overrides: str) -> RunComponents:
        """A run of `steps` gradients of `batch` samples, augmented as CIFAR's are."""
        given = build_components(
            [
                f"model={self.model}",
                "dataset=synthetic",
                "dataset.shape=[3,32,32]",
                f"dataset.train={self.steps * self.batch}",
                "dataset.test=10",
                "schedule.lr=0.01",
                "run.epochs=1",
                f"run.batch_size={self.batch}",
                f"run.device={self.device}",
                f"run.precision={self.precision}",
                *overrides,
            ]
        )
        given.dataset.train.augment = PadCrop(4, flip=True)
        return given


def bare_step(plan: Plan, given: RunComponents, mode: str | None) -> Callable[[Tensor], None]:
    """A training step of a plain loop on sample numbers, as good as PyTorch's own means make it."""
    split, cfg = given.dataset.train, given.cfg
    model = build_module(cfg, given.dataset)
    # PyTorch's types leave the format out.
    model = model.to(given.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=cfg.schedule.lr, weight_decay=cfg.algorithm.weight_decay, fused=True
    )

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(given.device.type, torch.bfloat16, enabled=plan.precision == "bf16"):
            outputs = model(inputs)
        return nn.functional.cross_entropy(outputs.float(), targets)

    forward = loss if mode is None else torch.compile(loss, mode=mode, dynamic=False)

    def step(ids: Tensor) -> None:
        inputs, targets = split.batch(ids, seed=0, epoch=0)
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad(set_to_none=True)
        forward(inputs.contiguous(memory_format=torch.channels_last), targets).backward()
        optimizer.step()

    return step


def bare(plan: Plan, given: RunComponents, mode: str | None) -> Side:
    """A plain training loop over the samples of a run; returns samples/s."""
    step, samples = bare_step(plan, given, mode), len(given.dataset.train)

    def side() -> float:
        order = torch.randperm(samples).to(given.device)
        floors.finish(given.device)
        begin = time.perf_counter()
        for ids in order.split(plan.batch):
            step(ids)
        floors.finish(given.device)
        return samples / (time.perf_counter() - begin)

    return side


def through(given: RunComponents) -> Side:
    """The same samples through dcrun; returns samples/s."""
    return lambda: run(given)["samples_per_second"]


class Attempts:
    """Keeps to the time, and what could not be measured.

    Args:
        limit: seconds from now after which nothing new is to begin.

    Attributes:
        failed: by what was to be measured, why it was not.
    """

    def __init__(self, limit: float) -> None:
        self.end = time.perf_counter() + limit
        self.failed: dict[str, str] = {}

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.end - time.perf_counter()

    def __call__(self, what: str, work: Callable[[], Any]) -> Any:
        """Return what `work` returns; None if it failed or no time is left."""
        if self.left <= 0:
            self.failed[what] = "no time was left"
            return None
        try:
            return work()
        except Exception as error:  # noqa: BLE001 (compilers, profilers and memory fail in all ways)
            self.failed[what] = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return None


def training(plan: Plan, attempts: Attempts) -> tuple[list[Row], dict[str, list[float]]]:
    """All sides in turn; returns ratios, and samples/s of each side."""
    dc_asgd = ["algorithm=dc_asgd_a", "cluster.workers=8"]
    sgd = plan.subject("algorithm=sgd")
    sides = {
        "(a) bare eager loop": bare(plan, sgd, None),
        "(b) bare loop, torch.compile(mode=reduce-overhead)": bare(plan, sgd, "reduce-overhead"),
        "(c) dcrun sgd": through(sgd),
        "(c) dcrun sgd, run.compile=true": through(plan.subject("algorithm=sgd", "run.compile=true")),
        "(d) dcrun dc_asgd_a, 8 workers": through(plan.subject(*dc_asgd)),
        "(d) dcrun dc_asgd_a, 8 workers, run.compile=true": through(plan.subject(*dc_asgd, "run.compile=true")),
    }
    running = {name: side for name, side in sides.items() if attempts(name, side) is not None}
    seconds = min(plan.seconds, max(0.0, attempts.left) / 2)
    speeds = in_turn(list(running.values()), rounds=plan.rounds, seconds=seconds, warm=True, least=1)
    found = dict(zip(running, speeds, strict=True))
    a, b, c, c_compiled, d, d_compiled = sides

    def compared(what: str, target: float, one: str, other: str) -> Row:
        why = "; ".join(f"{name}: {attempts.failed[name]}" for name in (one, other) if name in attempts.failed)
        return Row(what, target, [] if why else ratios(found[one], found[other]), note=why)

    rows = [
        compared("(c) dcrun sgd, compiled / (b) bare loop, compiled", 1.0, c_compiled, b),
        compared("(c) dcrun sgd, compiled / (a) bare eager loop", 3.0, c_compiled, a),
        compared("(c) dcrun sgd, captured only / (a) bare eager loop", 3.0, c, a),
        compared("(d) dc_asgd_a, 8 workers / (c) sgd, both compiled", 0.9, d_compiled, c_compiled),
        compared("(d) dc_asgd_a, 8 workers / (c) sgd, both captured only", 0.9, d, c),
    ]
    return rows, found


def several(plan: Plan, attempts: Attempts) -> list[Row]:
    """Several gradients at a time, relative to one after the other."""
    seconds = min(plan.seconds, max(0.0, attempts.left) / 2) / 2
    rows = gpu_workers.compared_processes(
        plan.subject, through, attempts, device=plan.device, rounds=plan.rounds, seconds=seconds
    )
    options = {"batch": plan.batch, "repeats": plan.repeats, "rounds": plan.rounds, "seconds": seconds / 2}
    given = plan.subject("algorithm=sgd")
    what = "one batched call"
    batched = attempts(what, lambda: gpu_workers.compared_batched(given, workers=8, **options))
    return rows + [batched] * (batched is not None)


def updates(plan: Plan) -> list[Row]:
    """Pushes of both forms of DC-ASGD, by bytes that must move per second, beside a plain copy's."""
    device = torch.device(plan.device)
    a, b, g = torch.randn(3, plan.weights, device=device)

    def speed(work: Callable[[], object], vectors: int) -> Side:
        amount = vectors * 4 * plan.weights
        return pace(work, amount, repeats=plan.repeats, finish=lambda: floors.finish(device))

    def push(method: DCASGDConstant | DCASGDAdaptive) -> Callable[[], None]:
        method.start(torch.randn(plan.weights, device=device), 2)
        method.pull(1)
        lr = 1e-6

        def work() -> None:
            nonlocal lr
            lr *= 1.0001
            method.push(1, {"g": g}, Step(lr=lr))

        return work

    constant, adaptive = DCASGDConstant(lambda0=0.04), DCASGDAdaptive(lambda0=2.0, m=0.95)
    # A copy reads and writes a vector; -c reads w, g, w_bak and writes w; -a reads and writes MeanSquare too.
    sides = [speed(lambda: b.copy_(a), 2), speed(push(constant), 4), speed(push(adaptive), 6)]
    copy, c, d = in_turn(sides, rounds=plan.rounds, seconds=plan.seconds / 4)
    note = f"copy of {plan.weights:,} weights: {max(copy) / 1e9:.0f} GB/s at best"
    return [
        Row("dc_asgd_c push / copy", 0.8, ratios(c, copy), note=note),
        Row("dc_asgd_a push / copy", 0.8, ratios(d, copy), note=note),
    ]


def bounds_of(plan: Plan, speeds: dict[str, list[float]], given: RunComponents) -> dict[str, Any]:
    """What bounds a step from below, and the share of each bound that every side reaches."""
    ids = torch.arange(plan.batch, device=given.device)
    eager = bare_step(plan, given, None)
    inputs, _ = given.dataset.train.batch(ids)
    measured = floors.measure(
        given.device,
        launches=floors.kernels(lambda: eager(ids), given.device),
        moved=floors.bytes_of(given.oracle.replica.module, inputs),
        weights=plan.weights,
        repeats=plan.repeats,
    )
    step = {name: plan.batch / statistics.median(found) for name, found in speeds.items()}
    shares = {
        name: {bound: low / took for bound, low in measured["bounds_seconds"].items()} for name, took in step.items()
    }
    return measured | {"step_seconds": step, "shares": shares}


def memory(plan: Plan, attempts: Attempts) -> dict[int, int]:
    """Peak bytes of simulations of DC-ASGD-a by number of workers, as in `summary.json`, plus what graphs hold."""
    device = torch.device(plan.device)

    def peak(workers: int) -> int:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            before = torch.cuda.memory_reserved()
            torch.cuda.reset_peak_memory_stats()
        else:
            before = 0
        # Few steps, but enough samples for a batch of each worker.
        given = plan.subject(
            "algorithm=dc_asgd_a", f"cluster.workers={workers}", f"dataset.train={(2 * workers + 4) * plan.batch}"
        )
        found = run(given)["peak_memory_bytes"]
        return torch.cuda.max_memory_reserved() - before if device.type == "cuda" else found

    tried = {workers: attempts(f"memory of {workers} workers", partial(peak, workers)) for workers in plan.workers}
    return {workers: found for workers, found in tried.items() if found is not None}


def report(
    console: Console,
    rows: list[Row],
    speeds: dict[str, list[float]],
    bounds: dict[str, Any],
    peaks: dict[int, int],
    failed: dict[str, str],
) -> None:
    """Print all tables."""
    table = Table(show_edge=False)
    known = bounds.get("bounds_seconds", ())
    for name in ("samples/s", "median", "min - max", *(f"share of {bound}" for bound in known)):
        table.add_column(name, justify="left" if name == "samples/s" else "right")
    for name, found in speeds.items():
        shares = (f"{share:.0%}" for share in bounds["shares"][name].values()) if known else ()
        spread = f"{min(found):,.0f} - {max(found):,.0f}"
        table.add_row(name, f"{statistics.median(found):,.0f}", spread, *shares)
    console.print(table)
    if known:
        counted = f"{bounds['kernels_of_an_eager_step']} kernels, {bounds['bytes_that_must_move'] / 1e6:.0f} MB a step"
        launch, node = bounds["seconds_of_a_launch"], bounds["seconds_of_a_kernel_in_a_graph"]
        console.print(f"  [dim]{counted}; {1e6 * launch:.1f} µs a launch, {1e6 * node:.1f} µs a kernel in a graph[/]")
    console.print()
    show(rows, console)
    console.print()
    table = Table(show_edge=False)
    table.add_column("workers", justify="right")
    table.add_column("peak memory, MB", justify="right")
    for workers, peak in peaks.items():
        table.add_row(str(workers), f"{peak / 1e6:,.0f}")
    console.print(table)
    for what, why in failed.items():
        console.print(f"not measured: {what} ({why})", markup=False, highlight=False)


def measure(plan: Plan, console: Console, folder: Path) -> None:
    """Measure everything, print it, and write it to `results.json`, after each part what is known so far."""
    begin = time.perf_counter()
    attempts = Attempts(plan.limit)
    folder.mkdir(parents=True)
    path = folder / "results.json"
    known: dict[str, Any] = {"date": folder.name, **machine.facts(torch.device(plan.device)), "plan": asdict(plan)}

    def keep(**found: Any) -> None:
        known.update(found, seconds=time.perf_counter() - begin, not_measured=attempts.failed)
        path.write_text(json.dumps(known, indent=2, allow_nan=False) + "\n")

    rows, speeds = training(plan, attempts)
    keep(rows=[asdict(row) for row in rows], samples_per_second=speeds)
    rows += attempts("several gradients at a time", lambda: several(plan, attempts)) or []
    keep(rows=[asdict(row) for row in rows])
    rows += attempts("updates", lambda: updates(plan)) or []
    keep(rows=[asdict(row) for row in rows])
    bounds = attempts("floors", lambda: bounds_of(plan, speeds, plan.subject("algorithm=sgd"))) or {}
    keep(floors=bounds)
    peaks = memory(plan, attempts)
    keep(peak_memory_bytes=peaks)
    report(console, rows, speeds, bounds, peaks, attempts.failed)
    console.print(f"\n{time.perf_counter() - begin:.0f} s; every round in {path}")


def main(arguments: list[str] | None = None) -> int:
    """Measure on the GPU, if there is one."""
    parser = argparse.ArgumentParser(description="Training throughput on one GPU.")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default=Plan.precision)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs" / "benchmarks")
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py: this machine has no usable GPU; nothing was measured")
        return 0
    name = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S") + "_gpu"
    measure(Plan(precision=given.precision), Console(), given.outputs / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
