"""Part of `gpu.py`: what several gradients at a time gain on GPUs, in compute processes and in one batched call.

A captured step of a small network leaves most of a large GPU idle. Compute processes fill it with other workers' steps,
or other GPUs with them. One call can do so too: `vmap` over workers, each with weights and a batch of its own, so that
every kernel works on all of them. dcrun makes no such calls: a convolution with weights for each worker is another
kernel, with other bits, and a call would have to wait for workers that are in flight. The figure says what it would
gain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import floors
import torch
from sidebyside import Row, Side, in_turn, pace, ratios
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from algorithms.base import Batch
from runner.gradients.cuda_graph import WARM_UP_STEPS, CudaGraphs
from runner.train.build import RunComponents


def compared_processes(
    subject: Callable[..., RunComponents],
    through: Callable[[RunComponents], Side],
    attempt: Callable[[str, Callable[[], Any]], Any],
    *,
    device: str,
    rounds: int,
    seconds: float,
) -> list[Row]:
    """Measure simulations with several compute processes, relative to one process.

    Args:
        subject: makes a run of `gpu.Plan` with these overrides.
        through: makes a side of it.
        attempt: see `gpu.Attempts`.
        device: run.device.
        rounds: at most.
        seconds: after so many no round begins.
    """
    gpus = torch.cuda.device_count() if device == "cuda" else 1
    # A GPU that is named is that of all processes.
    one = "cuda:0" if device == "cuda" else device

    def side(count: int, place: str) -> Side:
        # Not augmented: processes build their data anew, from the configuration.
        options = (f"run.device={place}", f"run.compute_processes={count}")
        given = subject("algorithm=dc_asgd_a", f"cluster.workers={max(8, gpus)}", *options)
        given.dataset.train.augment = None
        return through(given)

    sides = {"one process": side(1, one), "two processes on one GPU": side(2, one)}
    many = f"{gpus} processes on {gpus} GPUs"
    if gpus > 1:
        sides[many] = side(gpus, device)
    running = {name: each for name, each in sides.items() if attempt(name, each) is not None}
    found = dict(
        zip(running, in_turn(list(running.values()), rounds=rounds, seconds=seconds, warm=True, least=1), strict=True)
    )

    def row(name: str, target: float) -> Row:
        there = name in found and "one process" in found
        note = "" if there else "not measured: " + ("it failed" if gpus > 1 or name != many else "there is one GPU")
        values = ratios(found[name], found["one process"]) if there else []
        return Row(f"dc_asgd_a, 8 workers: {name} / one process", target, values, note=note)

    # The first shows whether a second process fills a GPU's gaps; nobody knows.
    return [row("two processes on one GPU", 1.0), row(many, 0.8 * gpus)]


def compared_batched(
    given: RunComponents, *, workers: int, batch: int, repeats: int, rounds: int, seconds: float
) -> Row:
    """Measure all workers' gradients in one batched call, relative to one captured step after the other.

    Args:
        given: a run, whose network and samples are taken.
        workers: number of workers.
        batch: samples of each.
        repeats: calls of a side in a round.
        rounds: at most.
        seconds: after so many no round begins.
    """
    ids = torch.arange(workers * batch, device=given.device).view(workers, batch) % len(given.dataset.train)

    def finish() -> None:
        floors.finish(given.device)

    sides = [_batched(given, ids), _in_turn(given, ids)]
    at_once, one_by_one = in_turn(
        [pace(side, ids.numel(), repeats=repeats, finish=finish) for side in sides], rounds=rounds, seconds=seconds
    )
    note = f"one batched call: {max(at_once):,.0f} samples/s at best, one after the other {max(one_by_one):,.0f}"
    what = f"gradients of {workers} workers: one vmap call / one step after the other"
    return Row(what, 1.0, ratios(at_once, one_by_one), note=note)


def _in_turn(given: RunComponents, ids: Tensor) -> Callable[[], object]:
    weights = given.oracle.replica.weights.repeat(len(ids), 1)
    batches = [Batch(number, 0, own) for number, own in enumerate(ids)]

    def work() -> None:
        for own, batch in zip(weights, batches, strict=True):
            given.oracle.gradient(own, batch)

    return work


def _batched(given: RunComponents, ids: Tensor) -> Callable[[], object]:
    """Return what computes the gradients [workers, ...] of all parameters, captured on a GPU."""
    module, device = given.oracle.replica.module.train(), given.device

    def each(named: Any) -> dict[str, Tensor]:
        return {name: torch.stack([tensor.detach()] * len(ids)) for name, tensor in named}

    parameters, buffers = each(module.named_parameters()), each(module.named_buffers())

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=given.cfg.run.precision == "bf16"):
            outputs = functional_call(module, (parameters, buffers), (inputs,))
        return nn.functional.cross_entropy(outputs.float(), targets)

    gradients = vmap(grad(loss))

    def work() -> dict[str, Tensor]:
        inputs, targets = given.dataset.train.batch(ids.flatten(), seed=0, epoch=0)
        return gradients(parameters, buffers, inputs.unflatten(0, ids.shape), targets.unflatten(0, ids.shape))

    if device.type != "cuda":
        return work
    # What comes of a capture lives in the graphs' memory, as the oracle's gradient does.
    kept: dict[str, Tensor] = {}
    graphs = CudaGraphs(device)
    with graphs.warming_up():
        for _ in range(WARM_UP_STEPS):
            work()
    return graphs.capture(lambda: kept.update(work()))
