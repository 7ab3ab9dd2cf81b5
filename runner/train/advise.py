"""What communication costs a collective method, and which delay would hide it: `run.advise=true`.

Of workers that do not wait for each other `train.advise_server` says what it costs.

The model is that of delayed averaging (ICLR 2022 submission, section 3.3): a step of computing takes t_p, a
combination t_c. Workers that communicate every τ steps and let a combination travel for d steps need
τ t_p + max(0, t_c − d t_p) for τ steps, so a delay of d steps hides all communication where d t_p >= t_c. If
computing times vary, the slowest worker counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from algorithms.base import Collective, CommunicationSchedule, message_bytes
from runner.config.errors import InputError
from runner.config.units import FLOAT_BYTES
from runner.loop.clock import Clock
from runner.loop.mixing import Mixing
from runner.train import advise_server, measure
from runner.train.components import RunComponents
from runner.train.executors import topology_of

DRAWS = 200
"""Periods that the slowest worker's time is the mean of."""


class Advice:
    """Times and throughput of a collective method by number of workers.

    Args:
        cfg: the composed configuration, for its cluster.
        method: what is combined, and how.
        weights: number of weights.
        batch_size: samples per worker and step.
        measured_step: seconds of one step of computing; None takes `cluster.compute`.
        measured_combination: seconds of the real network for one combination, and among how many workers; None takes
            `cluster.network` alone.
    """

    def __init__(
        self,
        cfg: DictConfig,
        method: Collective,
        *,
        weights: int,
        batch_size: int,
        measured_step: float | None = None,
        measured_combination: tuple[float, int] | None = None,
    ) -> None:
        self.cluster = cfg.cluster
        self.seed = cfg.seed
        self.method = method
        self.nbytes = message_bytes(method.layout(weights))
        self.batch_size = batch_size
        self.measured_step = measured_step
        self.measured_combination = measured_combination
        self._clocks: dict[int, Clock] = {}

    def clock(self, workers: int) -> Clock:
        """Return the clock of the cluster with another number of workers."""
        # One for all questions: it reads a file of delays, and warns of its repeating, once.
        if workers not in self._clocks:
            compute, stragglers, network = self.cluster.compute, self.cluster.stragglers, self.cluster.network
            self._clocks[workers] = Clock(compute, stragglers, network, workers=workers, seed=self.seed)
        return self._clocks[workers]

    def step_seconds(self, workers: int) -> float:
        """t_p: mean seconds of one step of computing, over workers and steps."""
        # The mean over workers, not the slowest one's: the slowest enters where periods are compared, in `throughput`.
        return self._slowest(workers, 1, slowest=False)

    def combination_seconds(self, workers: int) -> float:
        """t_c: seconds of one combination."""
        clock, groups = self.clock(workers), groups_of(self.method, workers)
        # Of groups of neighbours the largest counts, for which the others wait in the end.
        most, combine = max(map(len, groups)), "gather" if self.method.combine == "mix" else self.method.combine
        seconds = clock.combining_seconds(combine, self.nbytes, most)
        if self.measured_combination is not None and workers > 1:
            # Measured time comes on top of the modelled one: processes act the modelled network by sleeping.
            measured, among = self.measured_combination
            # A ring's cost per byte grows as (M − 1) / M; an all-gather's as M − 1, of M in a group.
            grow = (lambda m: m - 1) if combine == "gather" else (lambda m: (m - 1) / m)
            seconds += measured * grow(most) / grow(max(map(len, groups_of(self.method, among))))
        return seconds

    def delay(self, workers: int) -> int:
        """Return the smallest d with d t_p >= t_c."""
        # Rounded first: a quotient that is a whole number may come out a little above it, which would be a step more.
        return math.ceil(round(self.combination_seconds(workers) / self.step_seconds(workers), 9))

    def throughput(self, workers: int, schedule: CommunicationSchedule) -> tuple[float, float]:
        """Return samples per second of all workers together, and what share that is of them without communication."""
        computing = self._slowest(workers, schedule.period)
        # A combination that ends before its delay is over costs nothing, and gains nothing either.
        exposed = max(0.0, self.combination_seconds(workers) - schedule.delay * self.step_seconds(workers))
        period = computing + exposed
        return workers * self.batch_size * schedule.period / period, computing / period

    def _slowest(self, workers: int, steps: int, slowest: bool = True) -> float:
        """Return mean seconds that the slowest worker (or with `slowest=False` any) needs for so many steps."""
        clock = self.clock(workers)
        total = 0.0
        for period in range(DRAWS):
            # Each period has tasks of its own, since the clock gives the same task the same time again.
            tasks = range(period * steps, (period + 1) * steps)
            times = [sum(self._seconds(clock, m, task) for task in tasks) for m in range(workers)]
            total += max(times) if slowest else sum(times) / workers
        return total / DRAWS

    def _seconds(self, clock: Clock, worker: int, task: int) -> float:
        """Return the seconds of one step of computing, as the clock has them or would act them on a measured step."""
        # A step may take several gradients, each of which costs the clock its own seconds.
        gradients = self.method.cost.gradients
        if self.measured_step is None:
            return clock.compute_seconds(worker, task, 1.0, gradients)
        return self.measured_step + clock.sleep_seconds(worker, task, self.measured_step, 1.0, gradients)


def groups_of(method: Collective, workers: int) -> list[list[int]]:
    """Return with whom each worker combines, itself too: all workers, or its neighbours."""
    return Mixing(method, workers).groups if method.combine == "mix" else [list(range(workers))] * workers


def show(components: RunComponents) -> int:
    """Print t_p, t_c, the smallest delay that hides t_c, and throughput against workers; train nothing.

    Returns:
        The exit code, 0.

    Raises:
        InputError: the method cuts the network.
    """
    cfg, method = components.cfg, components.method
    if method.cuts_network:
        what = f"algorithm={cfg.names.algorithm} uses {topology_of(type(method)).medium}"
        raise InputError.of("run.advise", True, what, "with algorithms whose workers have the whole network")
    # Only workers that step together wait for each other's communication in the way that the model here says.
    if not method.steps_together:
        advise_server.show(components, _rows(components))
        return 0
    advice = measured(components) if cfg.cluster.kind == "processes" else modelled(components)
    console = Console()
    console.print(_facts(components, advice))
    if not any(advice.combination_seconds(m) for m in _rows(components)):
        # A table of 100 % everywhere would read like an answer.
        console.print(
            "Combinations take no time here, so no delay and no period gains anything: cluster.network.bandwidth and "
            ".latency set what they take.",
            soft_wrap=True,
        )
        return 0
    console.print(_throughputs(components, advice))
    return 0


def _facts(components: RunComponents, advice: Advice) -> Table:
    """Return the table of the run's own number of workers."""
    cfg, method, workers = components.cfg, components.method, components.workers
    source = "measured, a worker alone" if cfg.cluster.kind == "processes" else "modelled"
    step, combination, delay = advice.step_seconds(workers), advice.combination_seconds(workers), advice.delay(workers)
    facts = Table(title=f"communication of {cfg.names.algorithm} on {cfg.names.model}", show_header=False)
    facts.add_row("weights", f"{components.parameters:,}")
    facts.add_row("a worker's contribution", f"{advice.nbytes / 2**20:.2f} MiB")
    facts.add_row("t_p, one step of computing", f"{step:.4g} s ({source})")
    facts.add_row(f"t_c, one combination of {workers} workers", f"{combination:.4g} s ({source.split(',')[0]})")
    facts.add_row("smallest delay with d t_p >= t_c", f"{delay} step(s), in periods of at least {delay + 1}")
    facts.add_row("the method as configured", f"every {method.period} step(s), {method.delay} step(s) late")
    return facts


def _throughputs(components: RunComponents, advice: Advice) -> Table:
    """Return the table of throughput by number of workers, a column for each schedule that the method compares."""
    compared = components.method.compared()
    table = Table(title="throughput, samples/s and share of what it would be without communication")
    for column in (
        "workers",
        "t_c [s]",
        "delay",
        *(f"{name}\n{_schedule_text(schedule)}" for name, schedule in compared.items()),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for m in _rows(components):
        cells = []
        for schedule in compared.values():
            samples, share = advice.throughput(m, schedule)
            cells.append(f"{samples:,.{0 if samples >= 1000 else 1}f} {100 * share:3.0f} %")
        table.add_row(str(m), f"{advice.combination_seconds(m):.4g}", str(advice.delay(m)), *cells)
    return table


def modelled(components: RunComponents) -> Advice:
    """Return what the simulated cluster's models say."""
    cfg, method = components.cfg, components.method
    return Advice(cfg, method, weights=components.parameters, batch_size=cfg.run.batch_size)


def measured(components: RunComponents) -> Advice:
    """Return what this machine's processes need, and the network that they act on top."""
    cfg, workers = components.cfg, components.workers
    method: Collective = components.method
    step: float | None = None
    # With a number, processes take as long as the clock says: there is nothing to measure.
    if cfg.cluster.compute.seconds is None:
        step = measure.step_seconds(components)
    elements = message_bytes(method.layout(components.parameters)) // FLOAT_BYTES
    combination: tuple[float, int] | None = None
    # A single worker combines with nobody.
    if workers > 1:
        groups = groups_of(method, workers)
        seconds = measure.combination_seconds(elements, groups, method.combine, cfg.cluster.timeout)
        combination = (seconds, workers)
    return Advice(
        cfg,
        method,
        weights=components.parameters,
        batch_size=cfg.run.batch_size,
        measured_step=step,
        measured_combination=combination,
    )


def _rows(components: RunComponents) -> Iterable[int]:
    """Return the numbers of workers to show: powers of two around the run's own; that alone if workers differ."""
    cluster = components.cfg.cluster
    # Speeds and stragglers are named worker by worker; for other numbers of workers there are none.
    named = cluster.compute.speeds is not None or cluster.compute.delays is not None
    if named or cluster.stragglers.workers is not None:
        return [components.workers]
    # Up to four times the run's own, so that the table shows where communication begins to cost.
    most = components.method.max_workers or max(32, 4 * components.workers)
    others = (2**k for k in range(most.bit_length()) if 2**k <= most)
    return sorted({components.workers} | {number for number in others if _possible(components.method, number)})


def _possible(method: Collective, workers: int) -> bool:
    """Return whether a method can have so many workers: edges that are listed are of some number alone."""
    try:
        method.check_workers(workers)
    except ValueError:
        return False
    return True


def _schedule_text(schedule: CommunicationSchedule) -> str:
    every = "every step" if schedule.period == 1 else f"every {schedule.period} steps"
    return every + (f"\n{schedule.delay} late" if schedule.delay else "")
