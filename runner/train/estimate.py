"""What a run will cost, from a few measured steps: `run.estimate=true`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from runner.config.units import FLOAT_BYTES
from runner.loop.barrier import count_barriers
from runner.train.components import RunComponents
from runner.train.compute import own_gpus, paying_count, process_count, speedup
from runner.train.costs import Costs
from runner.train.executors import topology_of
from runner.train.timing import median_seconds


class Work(NamedTuple):
    """How much a run has to do.

    Attributes:
        gradients: steps of single workers.
        updates: updates of the weights.
        evaluations: evaluations on the test data.
        barriers: barriers.
        passes: passes over the training set that barriers make, in all.
    """

    gradients: int
    updates: int
    evaluations: int
    barriers: int
    passes: float


def show(components: RunComponents) -> int:
    """Print parameters, memory and expected wall time of a run; train nothing.

    Memory counts weight vectors, gradients, the method's state and the data, not activations. Time is that of
    gradients, server updates and evaluations one after the other, as a simulation runs them, or shared among the
    workers as processes with a core of their own would.

    Returns:
        The exit code, 0.
    """
    method = components.method
    # Measured first: the method has started then, and has the state that is counted below.
    costs = topology_of(type(method)).measure_costs(components)
    evaluation, work = _evaluation_seconds(components), work_of(components)
    seconds = (work.gradients * costs.gradient + _barrier_seconds(components, costs, work)) / side_by_side(components)
    # Not divided by the workers, who do not share updates and evaluations.
    seconds += work.updates * costs.update + work.evaluations * evaluation
    n, dataset = components.parameters, components.dataset
    # Two vectors are the replica's: weights and gradients.
    vectors = 2 * n + costs.copies + sum(tensor.numel() for tensor in method.state().values())

    table = Table(title="estimate", show_header=False)
    table.add_row("parameters", f"{n:,}")
    table.add_row("weight vectors and method state", f"{FLOAT_BYTES * vectors / 2**20:.1f} MiB")
    held = dataset.train.nbytes + sum(split.nbytes for split in _scored(components))
    table.add_row("data", f"{held / 2**20:.1f} MiB")
    for row in _process_rows(components, costs, held):
        table.add_row(*row)
    table.add_row("a worker's messages, both ways", f"{FLOAT_BYTES * costs.traffic / 2**20:.2f} MiB")
    table.add_row("one gradient", f"{1e3 * costs.gradient:.2f} ms")
    table.add_row("one update", f"{1e3 * costs.update:.3f} ms")
    table.add_row("one evaluation", f"{evaluation:.2f} s")
    table.add_row("gradients, updates, evaluations", f"{work.gradients:,}, {work.updates:,}, {work.evaluations:,}")
    if work.barriers:
        table.add_row("barriers", f"{work.barriers:,}, {work.passes:g} passes over the training set in all")
    table.add_row("expected wall time", f"{_duration(seconds)} ({_where(components)}, {components.device})")
    Console().print(table)
    return 0


def _process_rows(components: RunComponents, costs: Costs, data: int) -> Iterator[tuple[str, str]]:
    """Yield what compute processes on GPUs take besides the run's own; on CPUs they share all but the replica.

    Args:
        components: of the run.
        costs: of a step.
        data: bytes of the data, which every process has on its GPU.
    """
    method = components.method
    if components.device.type != "cuda" or (count := process_count(components)) == 1:
        return
    # A server's state is on the run's GPU alone; that of workers which step together or share memory is everywhere.
    instances = 0 if method.has_server else components.workers if method.steps_together and not method.replicated else 1
    states = instances * sum(tensor.numel() for tensor in method.state().values())
    own = data + FLOAT_BYTES * (2 * components.parameters + costs.traffic + states)
    # A message of each worker, and a result for each process and one more.
    shared = FLOAT_BYTES * (costs.traffic * (components.workers + count + 1) + states)
    yield "each compute process, on its GPU", f"{own / 2**20:.1f} MiB, and a CUDA context"
    yield "page-locked CPU memory", f"up to {shared / 2**20:.1f} MiB"


def work_of(components: RunComponents) -> Work:
    """Count what a run has to do."""
    method, run, updates = components.method, components.cfg.run, len(components.batches)
    barriers = count_barriers(method, updates)
    return Work(
        gradients=updates * (components.workers if method.steps_together else 1),
        # A server is pushed to once in a period.
        updates=math.ceil(updates / method.period) if method.has_server else updates,
        # Less a little: a quotient that is a whole number may come out above it, and
        # would count an evaluation too many.
        evaluations=math.ceil(run.epochs / run.eval_every - 1e-9),
        barriers=barriers,
        passes=barriers * method.barrier_cost.gradients,
    )


def side_by_side(components: RunComponents) -> float:
    """Return how many times as fast as one process the workers compute together, with a core or GPU for each process.

    Modules whose backward passes are locked take turns; the others wait for the one that has most to compute.
    """
    method = components.method
    if components.cfg.cluster.kind != "processes":
        return speedup(components, process_count(components))
    # Workers of all other topologies have a whole network each.
    if not method.cuts_network:
        return float(components.workers)
    return 1.0 if method.locked else 1 / max(components.partition.work_shares)


def _where(components: RunComponents) -> str:
    """Return what computes, in words, and what could besides."""
    if components.cfg.cluster.kind == "processes":
        return f"{components.workers} processes, each with {torch.get_num_threads()} thread(s) of its own"
    count = process_count(components)
    if count > 1:
        gpus = own_gpus(components) if components.device.type == "cuda" else 0
        return f"{count} processes" + (f" on {min(count, gpus)} GPU(s)" if gpus else "")
    more = paying_count(components)
    return "one process" if more == 1 else f"one process; run.compute_processes={more} has the same bits in less"


def _barrier_seconds(components: RunComponents, costs: Costs, work: Work) -> float:
    """Return the seconds of all barriers: of a gradient evaluation per sample and pass, from those of one push."""
    # A push may be of several gradients over a batch; what a barrier evaluates is counted a sample at a time.
    evaluation = costs.gradient / components.method.cost.gradients / components.batches.size
    return work.passes * evaluation * components.samples


def _evaluation_seconds(components: RunComponents) -> float:
    """Return the seconds of an evaluation on the test and validation data, from those of one batch of each."""
    # As an evaluation does: batch norm then uses its running statistics, which is less work.
    components.oracle.replica.module.eval()
    return sum(_scoring_seconds(components, split) for split in _scored(components))


def _scoring_seconds(components: RunComponents, split: Any) -> float:
    size = min(components.cfg.run.eval_batch_size, len(split))
    # A data set may have no test samples.
    if not size:
        return 0.0
    ids = torch.arange(size)
    with torch.no_grad():
        batch = median_seconds(lambda: components.oracle.loss(*split.batch(ids)), components.device)
    return batch * len(split) / size


def _scored(components: RunComponents) -> list[Any]:
    """Return the splits that an evaluation goes through."""
    return [components.dataset.test, *([] if components.validation is None else [components.validation])]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
