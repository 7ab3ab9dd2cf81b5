"""Measurements of single layers during a run, written to `layers.jsonl` in the run folder.

The file has a line for each of `metrics.jsonl`, in the same order, with the same `epoch` and `updates`, and for each
diagnostic an object with a number per layer. `run.diagnostics` says which; their time is evaluation, not training.

What is measured on samples is measured on a fixed part of the training set, without augmentation. Batch norm uses its
running statistics, so that f_i depends on sample i alone; early in a run these lag behind the weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from runner.gradients.oracle import NetworkOracle
from runner.run_folder import columns
from runner.run_folder.contents import LAYERS
from runner.run_folder.jsonl import append, to_line, truncate_lines

log = logging.getLogger("dcrun")

DECADES = (-4, 5)
"""Learning rates are tried from 1e-4 to 1e5; figure 9 takes 1e-2 to 1e5."""
STEPS = 8
"""A decade's parts: rates are told apart by a factor of 10^(1/8) = 1.33."""
ROUNDING = 1e-6
"""Relative rise of a float32 loss that is not told from none."""


DISAGREEMENT = "disagreement"
"""‖x_m − mean_j x_j‖, the workers' mean, for workers with weights of their own: known to who executes the method."""


@runtime_checkable
class MeasuresDisagreement(Protocol):
    """Executes a method whose workers have weights of their own."""

    def disagreements(self) -> Tensor:
        """Return the workers' mean distance from the mean of their weights, layer by layer (layers,)."""
        ...


SUFFICIENT_DIRECTION = "sufficient_direction"
"""σ of the modules of a pipeline, see `gradients.directions`: a number for each module in place of each layer."""


@runtime_checkable
class MeasuresDirections(Protocol):
    """Executes a method whose modules take directions of their own."""

    def sufficient_directions(self) -> dict[str, float]:
        """Return σ of each module since the last call."""
        ...


def spread(samples: int, count: int) -> Tensor:
    """Return at most `count` sample numbers of `samples`, evenly spread: the same for every seed."""
    count = min(samples, count)
    return torch.arange(count) * samples // count


class LayerLog:
    """Measure layers at given weights, and append what was found to the run folder.

    Args:
        oracle: the network; its flat gradient is overwritten.
        ids: the training samples to measure on.
        folder: the run folder.
        lines: how many lines of the file to keep, those of the checkpoint that the run goes on from.
        quantities: what to measure, names of `QUANTITIES`, `DISAGREEMENT` or `SUFFICIENT_DIRECTION`.
        batch_size: samples at a time.
    """

    def __init__(
        self,
        oracle: NetworkOracle,
        ids: Tensor,
        folder: Path,
        lines: int,
        quantities: Sequence[str],
        *,
        batch_size: int,
    ) -> None:
        self.oracle = oracle
        self.ids = ids
        self.path = folder / LAYERS
        self.quantities = tuple(quantities)
        self.batch_size = batch_size
        # Before the first evaluation: what a killed run wrote after its checkpoint is measured again.
        truncate_lines(self.path, lines)

    def __call__(self, row: dict[str, Any], weights: Tensor, statistics: Tensor, executor: object) -> None:
        """Measure at flat weights and running statistics, and append a line that is on the disk on return."""
        names = [layer.name for layer in self.oracle.replica.layers]
        record: dict[str, Any] = {key: row[key] for key in (columns.EPOCH, columns.UPDATES)}
        for quantity in self.quantities:
            if quantity == SUFFICIENT_DIRECTION:
                assert isinstance(executor, MeasuresDirections)
                record[quantity] = executor.sufficient_directions()
                continue
            if quantity == DISAGREEMENT:
                assert isinstance(executor, MeasuresDisagreement)
                values = executor.disagreements().tolist()
            else:
                values = self.measure(quantity, weights, statistics)
            record[quantity] = dict(zip(names, values, strict=True))
        try:
            # As for a row of metrics: a checkpoint that follows counts this line.
            append(self.path, to_line(record))
        except OSError as error:
            log.warning("%s could not be written (%s); the run goes on", self.path, error.strerror or error)

    def measure(self, quantity: str, weights: Tensor, statistics: Tensor) -> list[float]:
        """Return a quantity of each layer at flat weights and running statistics; NaN where it is not defined."""
        replica = self.oracle.replica
        if weights.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(weights)
        replica.statistics.copy_(statistics)
        replica.module.eval()
        return QUANTITIES[quantity](self.oracle, self.ids, self.batch_size)


def variance_factors(oracle: NetworkOracle, ids: Tensor, batch_size: int) -> list[float]:
    """Return the gradient's variance factor of each layer.

        M_k = (1/n) Σ_i ‖∇_k f_i(w)‖² / ‖(1/n) Σ_i ∇_k f_i(w)‖²

    1 where all samples agree, n or more where they cancel out; not a finite number where the mean is zero.
    Source: Huo, PhD thesis 2020, section 4.4.3 and figure 12, which takes all training samples.

    Raises:
        ValueError: the network has a layer whose per-sample norms are not known.
    """
    replica, n = oracle.replica, len(ids)
    # Room for all samples at once: a number for each layer and sample, not a gradient.
    squares = torch.zeros(len(replica.layers), n, device=replica.weights.device)
    # One pass for both: the gradient, and beside it the norms.
    _mean_gradient(oracle, ids, batch_size, squares)
    # Recorded are contributions to a mean over n samples, ∇_k f_i / n.
    above = squares.double().sum(1) * n
    pieces = [replica.gradient[layer.low : layer.high].double() for layer in replica.layers]
    return (above / torch.stack([piece.square().sum() for piece in pieces])).tolist()


def largest_rates(oracle: NetworkOracle, ids: Tensor, batch_size: int) -> list[float]:
    """Return the largest usable learning rate of each layer: how far a gradient step may go before the loss rises.

        γ_k = max { γ : f(w − γ' U_k ∇_k f(w)) ≤ f(w) for all γ' ≤ γ that were tried }

    U_k puts layer k's gradient in its place: the other layers keep their weights. For a loss that is quadratic in the
    layer it is 2/‖H_k‖ or more, twice the 1/L_k of theorem 4.3.2. Tried are powers of ten upwards, then the decade that
    fails is halved, so γ_k is right to a factor of 10^(1/8); 1e5 if none fails, NaN if 1e-4 fails or the layer
    has no gradient.

    Source: Huo, PhD thesis 2020, section 4.4.1. Deviation: figure 9 finds the bound by whole trainings with mNAG, one
    for each layer and rate (`algorithm.layer_scale` and `run.target_loss` make them); this is one step at one moment,
    without momentum, and can be followed over a run. A layer costs some ten passes over the samples. Computed in
    float32 whatever the run's precision is.
    """
    with oracle.in_float32():
        return _largest_rates(oracle, ids, batch_size)


def _largest_rates(oracle: NetworkOracle, ids: Tensor, batch_size: int) -> list[float]:
    replica = oracle.replica
    loss = _mean_gradient(oracle, ids, batch_size)
    # Without it a flat piece of the loss would count as rising, by its last bit.
    highest = loss + ROUNDING * abs(loss)

    def usable(weights: Tensor, before: Tensor, gradient: Tensor, eighth: int) -> bool:
        # Written into the layer's piece of the replica, where the loss is then computed.
        torch.add(before, gradient, alpha=-(10 ** (eighth / STEPS)), out=weights)
        return _mean_loss(oracle, ids, batch_size) <= highest

    found = []
    for layer in replica.layers:
        weights, gradient = replica.weights[layer.low : layer.high], replica.gradient[layer.low : layer.high]
        # With no gradient a step changes nothing, and every rate would look usable.
        if not gradient.any():
            found.append(math.nan)
            continue
        before = weights.clone()
        # In whole eighths of a decade: sums of floats would miss the ends.
        first, last = (STEPS * decade for decade in DECADES)
        # `low` is below all rates that are tried: it stays there if not even the first one is usable.
        low, high = first - STEPS, first
        # Upwards by decades, so that a rate is found usable only if all below it are.
        while high <= last and usable(weights, before, gradient, high):
            low, high = high, high + STEPS
        # The decade that failed is halved. There is none if the first rate failed, or if the last one was usable.
        while first <= low < last and high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if usable(weights, before, gradient, middle) else (low, middle)
        # `usable` leaves the layer at the rate that was tried last.
        weights.copy_(before)
        found.append(10 ** (low / STEPS) if low >= first else math.nan)
    return found


QUANTITIES = {"variance_factor": variance_factors, "largest_rate": largest_rates}
"""What is measured on samples; `runner.config.schema.DIAGNOSTICS` names these, `DISAGREEMENT` and
`SUFFICIENT_DIRECTION`, without loading torch."""


def _mean_gradient(oracle: NetworkOracle, ids: Tensor, batch_size: int, squares: Tensor | None = None) -> float:
    """Fill the flat gradient with the mean over samples, and `squares` with squared norms; return the mean loss."""
    oracle.replica.gradient.zero_()
    total = torch.zeros((), dtype=torch.float64, device=oracle.device)
    for low in range(0, len(ids), batch_size):
        some = ids[low : low + batch_size]
        recorded = None if squares is None else squares[:, low : low + len(some)]
        inputs, targets = oracle.split.batch(some)
        loss, _ = oracle.backward(inputs, targets, len(some) / len(ids), recorded)
        total += loss * len(some)
    return total.item() / len(ids)


@torch.no_grad()
def _mean_loss(oracle: NetworkOracle, ids: Tensor, batch_size: int) -> float:
    """Return the mean loss over samples of the replica as it stands."""
    total = torch.zeros((), dtype=torch.float64, device=oracle.device)
    for some in ids.split(batch_size):
        total += oracle.loss(*oracle.split.batch(some))[0] * len(some)
    return total.item() / len(ids)
