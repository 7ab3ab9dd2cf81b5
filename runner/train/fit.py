"""Delays from life: fit the virtual clock's model to recorded runs; the command is `runner.cli.dcrun_fit`.

Computing: each worker's mean over its gradients becomes its speed, so that the mean cycle of each is the recorded one;
the spread around it chooses the distribution, by likelihood. Network: what is left of a round trip after computing,
queueing and the server's own work is the time of two messages. Messages of one size cannot tell latency from bandwidth:
then all of it is latency. Recordings of networks of several sizes can. In place of a model of computing, the measured
seconds themselves can drive the clock (`delays_of`).
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from runner.config import delays
from runner.config.errors import InputError
from runner.config.paths import as_typed
from runner.run_folder.trace import PUSH, RESUMED, STOPPED, Record, Trace

CONSTANT = 0.01
"""Coefficient of variation below which computing times count as constant."""
DIGITS = 4
FEWEST = 2
"""Messages of each worker that a fit needs."""


class Cycles(NamedTuple):
    """What a trace tells of its workers' cycles.

    Attributes:
        compute: by worker, seconds of a gradient over a full batch.
        transfer: seconds of a round trip's two messages together.
        served: seconds that the server was busy with a message.
        nbytes: of a round trip's two messages together.
    """

    compute: dict[int, list[float]]
    transfer: list[float]
    served: list[float]
    nbytes: int


def cycles(trace: Trace) -> Cycles:
    """Take a trace apart.

    Raises:
        InputError: it has too few messages, or no measured times.
    """
    about = trace.about
    rest = about["samples"] % about["batch_size"]
    per_epoch = math.ceil(about["samples"] / about["batch_size"])
    compute: dict[int, list[float]] = defaultdict(list)
    transfer, served = [], []
    last: dict[int, Record] = {}
    for record in trace.records:
        # Between a stop and a continuation there is no cycle: the workers began anew.
        if record.kind == RESUMED:
            last.clear()
        # What was dropped is no gradient, but the worker's next cycle begins there.
        if record.kind == STOPPED:
            last[record.worker] = record
        if record.kind != PUSH:
            continue
        # The last batch of an epoch is short; its time is scaled up to that of a full one.
        numbers = range(record.batch, record.batch + record.steps)
        short = sum(number % per_epoch == per_epoch - 1 for number in numbers) if rest else 0
        share = record.steps - short + short * rest / about["batch_size"]
        compute[record.worker].append(record.computing / share / about["gradients"])
        served.append(record.served)
        # A worker's first push has none before it, and so no cycle.
        if record.worker in last:
            # What is left of the cycle, from push to push, when all that is known of it is taken away.
            cycle = record.time - last[record.worker].time
            # The computing is measured by the worker, the cycle by the server: what is left may be a little below 0.
            transfer.append(max(0.0, cycle - record.compute - record.waited - record.served - record.withheld))
        last[record.worker] = record
    few = [worker for worker in range(about["workers"]) if len(compute[worker]) < FEWEST]
    if few or not sum(served):
        what = f"worker {few[0]} has fewer than {FEWEST} messages" if few else "its times are virtual"
        raise InputError(f"{trace.path}: cannot be fitted: {what}; allowed: longer recordings of runs on processes")
    return Cycles(dict(compute), transfer, served, about["pull_bytes"] + about["push_bytes"])


def delays_of(trace: Trace) -> str:
    """Return the measured computing times as the content of a file for `cluster.compute.delays`.

    A row is one of a worker's messages, in the order in which it computed them; workers that computed fewer have empty
    cells at the end.

    Raises:
        InputError: it has too few messages or no measured times, or its workers computed what it does not tell of.
    """
    if trace.about.get("barriers"):
        what = "its workers compute at barriers too, for which a trace holds no seconds"
        raise InputError(f"{trace.path}: has not all delays: {what}; allowed: recordings of methods without barriers")
    if any(record.steps > 1 for record in trace.records):
        what = "its workers take several steps between messages, for which a trace holds the seconds of all together"
        raise InputError(f"{trace.path}: has not all delays: {what}; allowed: recordings of methods with a period of 1")
    compute = cycles(trace).compute
    columns = [compute[worker] for worker in range(trace.about["workers"])]
    for worker, column in enumerate(columns):
        if min(column) <= 0:
            # Of before recordings told how long a worker computed while the run's clock stood.
            message = f"message {column.index(min(column))} of worker {worker}"
            what = f"{message} was computed during an evaluation, for unknown seconds"
            allowed = "recordings made anew, or without evaluations (run.eval_every)"
            raise InputError(f"{trace.path}: has not all delays: {what}; allowed: {allowed}")
    return delays.text(columns)


def fit(traces: Sequence[Trace], delays_path: str | None = None) -> dict[str, Any]:
    """Return the `cluster` config, as plain values, whose simulation takes the time that the recordings took.

    Args:
        traces: recordings; the first decides about computing.
        delays_path: the file that holds what `delays_of` said; None to fit a model of computing instead.

    Raises:
        InputError: the traces cannot be fitted, or are of different numbers of workers.
    """
    workers = traces[0].about["workers"]
    for trace in traces:
        if trace.about["workers"] != workers:
            what = f"is of {trace.about['workers']} workers, {traces[0].path} of {workers}"
            raise InputError(f"{trace.path}: {what}; allowed: recordings with the same number of workers")
    recorded = [cycles(trace) for trace in traces]
    # Different networks compute differently long: the newest named decides, the others tell about the wires.
    compute = recorded[0].compute
    means = [statistics.fmean(compute[worker]) for worker in range(workers)]
    # Speeds are relative to this number, so its choice changes no worker's mean.
    seconds = statistics.median(means)
    relative = [
        value / mean
        for values, mean in zip(map(compute.get, range(workers)), means, strict=True)
        for value in values or ()
    ]
    modelled = {
        **distribution(np.array(relative)),
        "seconds": _round(seconds),
        "speeds": [_round(seconds / mean) for mean in means],
    }
    return {
        "kind": "simulated",
        "workers": workers,
        "compute": modelled if delays_path is None else {"delays": delays_path},
        "network": {**network(recorded), "server_seconds": _round(statistics.fmean(recorded[0].served))},
    }


def distribution(relative: np.ndarray) -> dict[str, Any]:
    """Choose the model of computing times that makes them most likely.

    Args:
        relative: computing times, each relative to its worker's mean.
    """
    variation = float(relative.std() / relative.mean())
    if variation < CONSTANT:
        return {"distribution": "constant"}
    # A time of 0 has no logarithm.
    x = np.maximum(relative, 1e-9)
    logs = np.log(x)
    # Lognormal and gamma by their moments, so that a simulation with either has the recorded mean and spread.
    sigma = math.sqrt(math.log(1 + variation**2))
    shape = 1 / variation**2
    jitter = float(np.abs(x - 1).max())
    likelihoods = {
        "lognormal": np.mean(
            -logs - math.log(sigma) - 0.5 * math.log(2 * math.pi) - (logs + sigma**2 / 2) ** 2 / 2 / sigma**2
        ),
        "gamma": np.mean((shape - 1) * logs - shape * x) + shape * math.log(shape) - math.lgamma(shape),
        # A jitter of 1 or more would allow times of zero or below.
        "uniform": -math.log(2 * jitter) if jitter < 1 else -math.inf,
    }
    best = max(likelihoods, key=lambda name: float(likelihoods[name]))
    parameters = {
        "lognormal": {"sigma": _round(sigma)},
        # The differences between machines are in `speeds` already, and must not be drawn a second time.
        "gamma": {"cv_task": _round(variation), "cv_machine": 0.0},
        "uniform": {"jitter": _round(jitter)},
    }
    return {"distribution": best, **parameters[best]}


def network(recorded: Sequence[Cycles]) -> dict[str, Any]:
    """Fit latency and bandwidth to the mean round trips: t = 2 latency + bytes / bandwidth."""
    times = [statistics.fmean(each.transfer) for each in recorded]
    sizes = [each.nbytes for each in recorded]
    if len(set(sizes)) == 1:
        return {"latency": _round(statistics.fmean(times) / 2), "bandwidth": None}
    slope, start = np.polyfit(sizes, times, 1)
    # Larger messages were no slower, which noise can do; a line through them would give a negative bandwidth.
    if slope <= 0:
        return {"latency": _round(statistics.fmean(times) / 2), "bandwidth": None}
    # Least squares through the origin.
    if start < 0:  # no latency to be seen
        slope, start = sum(t * s for t, s in zip(times, sizes, strict=True)) / sum(s * s for s in sizes), 0.0
    return {"latency": _round(start / 2), "bandwidth": _round(1 / slope)}


def overrides(cluster: dict[str, Any]) -> list[str]:
    """Return a fitted config as arguments for the command line."""
    flat = [f"cluster.workers={cluster['workers']}"]
    for section, key in itertools.chain.from_iterable([(s, k) for k in cluster[s]] for s in ("compute", "network")):
        value = cluster[section][key]
        if key == "delays":
            flat.append(as_typed(delays.KEY, value))
            continue
        text = "null" if value is None else json.dumps(value).replace(" ", "").replace('"', "")
        flat.append(f"cluster.{section}.{key}={text}")
    return flat


def document(cluster: dict[str, Any], traces: Sequence[Trace]) -> str:
    """Return a fitted config as a file for `conf/cluster/`."""
    about = traces[0].about
    names = ", ".join(str(trace.path) for trace in traces)
    lines = [
        f"# Fitted to {sum(trace.updates for trace in traces)} messages of {names}",
        f"# ({about['algorithm']}, {about['model']} on {about['dataset']}, batches of {about['batch_size']}).",
    ]
    if cluster["network"]["bandwidth"] is None:
        lines.append(
            f"# All messages had {about['pull_bytes']} bytes down and {about['push_bytes']} up: no bandwidth told."
        )
    lines += ["# " + " ".join(overrides(cluster)), "defaults: [simulated, _self_]", f"workers: {cluster['workers']}"]
    for section in ("compute", "network"):
        lines.append(f"{section}:")
        lines += [f"  {key}: {json.dumps(value)}" for key, value in cluster[section].items()]
    return "\n".join(lines)


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
