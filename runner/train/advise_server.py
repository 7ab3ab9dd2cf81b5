"""What communication costs workers that never wait for each other: those of a parameter server or a shared memory.

A worker pulls, computes and pushes, again and again: a round of R = t_pull + t_p + t_push + s seconds, s being what the
server takes for a message (`cluster.network.server_seconds`), with as many t_p as the method takes local steps. The
server handles one message at a time, so M workers make min(Σ 1/R, 1/s) pushes a second. From as many workers on as make
Σ 1/R = 1/s the server is busy all the time, and more of them only make pushes staler: between its pull and its push a
worker finds those of the M − 1 others, on average one of each. What a barrier costs, as of SVRG's full gradients, is
not counted.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from algorithms.base import message_bytes
from runner.config.units import FLOAT_BYTES
from runner.loop.clock import Clock
from runner.train.clocks import written_elements
from runner.train.components import RunComponents
from runner.train.executors import topology_of

DRAWS = 200
"""Gradients of a worker that its mean time is of."""


class ServerAdvice:
    """Throughput by number of workers.

    Args:
        cfg: the composed configuration, for its cluster.
        workers: the run's own number of them.
        pulled: bytes of what a worker gets, or reads, for a gradient.
        pushed: bytes of what it sends, or writes.
        gradients: gradient evaluations per sample.
        period: batches that a worker computes on between a pull and its push.
        measured: seconds of a gradient on this machine; None takes `cluster.compute`.
    """

    def __init__(
        self,
        cfg: DictConfig,
        *,
        workers: int,
        pulled: int,
        pushed: int,
        gradients: float,
        period: int = 1,
        measured: float | None = None,
    ) -> None:
        self.cfg = cfg
        self.gradients = gradients
        self.period = period
        self.measured = measured
        self._clocks: dict[int, Clock] = {}
        clock = self._clock(workers)
        self.pull_seconds, self.push_seconds = clock.transfer_seconds(pulled), clock.transfer_seconds(pushed)
        self.server_seconds = clock.server_seconds

    def _clock(self, workers: int) -> Clock:
        # One for all questions: it reads a file of delays, and warns of its repeating, once.
        if workers not in self._clocks:
            compute, stragglers, network = (self.cfg.cluster[key] for key in ("compute", "stragglers", "network"))
            self._clocks[workers] = Clock(compute, stragglers, network, workers=workers, seed=self.cfg.seed)
        return self._clocks[workers]

    def computing(self, workers: int) -> list[float]:
        """Return the mean seconds of a gradient of each worker."""
        clock = self._clock(workers)
        return [statistics.fmean(self._seconds(clock, m, task) for task in range(DRAWS)) for m in range(workers)]

    def _seconds(self, clock: Clock, worker: int, task: int) -> float:
        if self.measured is None:
            return clock.compute_seconds(worker, task, 1.0, self.gradients)
        return self.measured + clock.sleep_seconds(worker, task, self.measured, 1.0, self.gradients)

    @property
    def overhead(self) -> float:
        """Seconds of a round in which its worker does not compute, if it never waits for the server."""
        return self.pull_seconds + self.push_seconds + self.server_seconds

    def pushes(self, computing: list[float]) -> float:
        """Return the pushes a second of workers with these seconds of a gradient."""
        free = sum(1 / (self.period * seconds + self.overhead) for seconds in computing)
        return min(free, 1 / self.server_seconds) if self.server_seconds else free

    def most_workers(self, computing: list[float]) -> int | None:
        """Return from how many workers on the server is busy all the time; None if it takes no time."""
        if not self.server_seconds:
            return None
        # Rounded first: a quotient that is a whole number may come out a little above it.
        seconds = self.period * statistics.fmean(computing) + self.overhead
        return math.ceil(round(seconds / self.server_seconds, 9))


def show(components: RunComponents, workers: Iterable[int]) -> None:
    """Print what a round consists of, and throughput, waiting and staleness against workers; train nothing.

    Args:
        components: what the run is made of; its method has a server or a shared memory.
        workers: the numbers of workers to tell of.
    """
    cfg, method, n = components.cfg, components.method, components.parameters
    if method.has_server:
        layout = method.layout(n)
        pulled, pushed = message_bytes(layout.pull), message_bytes(layout.push)
    else:
        pulled, pushed = FLOAT_BYTES * n, FLOAT_BYTES * written_elements(components)
    measured: float | None = None
    # With a number, processes take as long as the clock says: there is nothing to measure.
    if cfg.cluster.kind == "processes" and cfg.cluster.compute.seconds is None:
        measured = topology_of(type(method)).measure_costs(components).gradient
    # Of an update after the first: some methods begin with a cheaper one.
    advice = ServerAdvice(
        cfg,
        workers=components.workers,
        pulled=pulled,
        pushed=pushed,
        gradients=1.0 if measured else method.evaluations(1),
        period=method.period if method.has_server else 1,
        measured=measured,
    )
    console = Console()
    own = advice.computing(components.workers)
    console.print(_facts(components, advice, statistics.fmean(own), (pulled, pushed)))
    if not advice.overhead:
        # A table of 100 % would read like an answer.
        console.print(
            "Messages take no time here, so every worker computes all the time, and M workers push M / t_p times a "
            "second, M - 1 updates late on average: cluster.network.bandwidth, .latency and .server_seconds set what "
            "messages take.",
            soft_wrap=True,
        )
        return
    console.print(_throughputs(components, advice, workers))


def _facts(components: RunComponents, advice: ServerAdvice, computing: float, sizes: tuple[int, int]) -> Table:
    cfg, method = components.cfg, components.method
    source = "modelled" if advice.measured is None else "measured, a worker alone"
    words = ("pull", "push") if method.has_server else ("read", "write")
    facts = Table(title=f"communication of {cfg.names.algorithm} on {cfg.names.model}", show_header=False)
    facts.add_row("weights", f"{components.parameters:,}")
    facts.add_row("t_p, one gradient", f"{computing:.4g} s ({source})")
    for word, size, seconds in zip(words, sizes, (advice.pull_seconds, advice.push_seconds), strict=True):
        facts.add_row(f"t_{word}", f"{seconds:.4g} s for {size / 2**20:.2f} MiB")
    if method.has_server:
        facts.add_row("s, the server for a message", f"{advice.server_seconds:.4g} s")
        most = advice.most_workers([computing])
        facts.add_row("the server is busy all the time", "never" if most is None else f"from {most} workers on")
    return facts


def _throughputs(components: RunComponents, advice: ServerAdvice, workers: Iterable[int]) -> Table:
    table = Table(title="throughput, and where a worker's time goes")
    for column in ("workers", "samples/s", "computing", "server busy", "mean staleness"):
        table.add_column(column, justify="right", no_wrap=True)
    for m in workers:
        computing = advice.computing(m)
        pushes = advice.pushes(computing)
        samples = pushes * advice.period * components.cfg.run.batch_size
        table.add_row(
            str(m),
            f"{samples:,.{0 if samples >= 1000 else 1}f}",
            f"{100 * pushes * advice.period * statistics.fmean(computing) / m:.0f} %",
            f"{100 * pushes * advice.server_seconds:.0f} %",
            str(m - 1),
        )
    return table
