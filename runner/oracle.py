"""The oracle of a neural network on a data set: gradients at given weights on given samples.

It also counts what training reports (loss, errors, samples), on the device, so that no step waits for a number.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from runner.replica import Replica
from runner.sample_norms import SampleNorms
from runner.seeds import derive


class Sample(Protocol):
    """A batch as methods hand it back; see `algorithms.base.Batch`."""

    @property
    def number(self) -> int:
        """Position in the run."""
        ...

    @property
    def epoch(self) -> int:
        """Pass over the training set."""
        ...

    @property
    def ids(self) -> Tensor:
        """Sample numbers."""
        ...


class NetworkOracle:
    """Answer a method's questions about the training loss of a network.

    Args:
        replica: the flattened network; its module has `loss(outputs, targets)` and `errors(outputs, targets)`.
        split: training samples, `batch(ids, seed=, epoch=)`.
        seed: the run's seed, for augmentation and dropout.
        precision: "fp32", "tf32" or "bf16" (autocast; weights and gradients stay float32).
        compiled: compile forward and loss with `torch.compile`.
        micro_batch: largest number of samples at a time. A larger batch is cut into pieces that differ by at most one
            sample, and their gradients are accumulated: without batch norm the gradient of the whole, to rounding, in
            the memory of a piece. Batch norm normalises each piece by itself; the batch's statistics are then the
            pieces' means and unbiased variances, averaged by samples. None for a batch in one piece.

    Attributes:
        totals: (3,) float64 on the device: sum of losses, errors and samples since `take_totals`.
        streams: whether the split decodes samples as they are used, and wants to know of batches ahead.
    """

    def __init__(
        self,
        replica: Replica,
        split: Any,
        *,
        seed: int,
        precision: str = "fp32",
        compiled: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        self.replica = replica
        self.split = split
        self.streams = hasattr(split, "expect")
        self.seed = seed
        self.device = replica.weights.device
        self.precision = precision
        self.micro_batch = micro_batch
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        self._forward = torch.compile(self.loss, dynamic=False) if compiled else self.loss
        self._has_dropout = any(isinstance(m, nn.modules.dropout._DropoutNd) for m in replica.module.modules())

    def gradient(self, w: Tensor, batch: Sample) -> Tensor:
        """Return the mean gradient over the batch at the flat weights `w`, as a flat vector that the next call reuses.

        An empty batch has a zero gradient and leaves the batch statistics as they were.
        """
        return self._backward(w, batch, None)

    def gradient_and_norms(self, w: Tensor, batch: Sample, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Return `gradient`, and for each layer the mean norm of a single sample's gradient, (layers,).

        The mean is over the batch's first `samples`, by default all; zero for an empty batch. With batch norm a
        sample's gradient is its contribution to the batch's, see `runner.sample_norms`.

        Raises:
            ValueError: the network has a layer whose norms are not known.
        """
        size = batch.ids.numel()
        counted = size if samples is None else min(samples, size)
        squares = torch.zeros(len(self.replica.layers), counted, device=self.device)
        gradient = self._backward(w, batch, squares)
        # Contributions sum to the gradient of a mean over `size` samples.
        return gradient, squares.sqrt_().sum(1).mul_(size / max(1, counted))

    @cached_property
    def sample_norms(self) -> SampleNorms:
        """What records norms of single samples' gradients.

        Raises:
            ValueError: the network has a layer whose norms are not known.
        """
        return SampleNorms(self.replica.module, self.replica.layers)

    def _backward(self, w: Tensor, batch: Sample, squares: Tensor | None) -> Tensor:
        """Fill the flat gradient, piece by piece, and `squares` with squared norms of contributions."""
        replica = self.replica
        if w.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(w)
        replica.gradient.zero_()
        size = batch.ids.numel()
        if size == 0:
            return replica.gradient
        if self._has_dropout:
            torch.manual_seed(derive(self.seed, "dropout", batch.number))
        replica.module.train()
        pieces = self._pieces(batch.ids)
        statistics = torch.zeros_like(replica.statistics) if len(pieces) > 1 else None
        low = 0
        for ids in pieces:
            inputs, targets = self.split.batch(ids, seed=self.seed, epoch=batch.epoch)
            recorded = None if squares is None or low >= squares.shape[1] else squares[:, low : low + len(ids)]
            loss, errors = self.backward(inputs, targets, len(ids) / size, recorded)
            with torch.no_grad():
                self.totals[0] += loss * len(ids)
                self.totals[1] += errors
                self.totals[2] += len(ids)
            if statistics is not None:
                statistics.add_(replica.statistics, alpha=len(ids) / size)
            low += len(ids)
        if statistics is not None:
            replica.statistics.copy_(statistics)
        return replica.gradient

    def _pieces(self, ids: Tensor) -> tuple[Tensor, ...]:
        return ids.tensor_split(1 if self.micro_batch is None else math.ceil(ids.numel() / self.micro_batch))

    def expect(self, batch: Sample) -> None:
        """Say that a gradient on `batch` will be asked for soon; of use where `streams`."""
        if self.streams and batch.ids.numel():
            for ids in self._pieces(batch.ids):
                self.split.expect(ids, seed=self.seed, epoch=batch.epoch)

    def backward(
        self, inputs: Tensor, targets: Tensor, weight: float, squares: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add `weight` times the gradient of the mean loss to the flat gradient.

        Args:
            inputs: [B, ...].
            targets: [B].
            weight: share of these samples in the batch that they belong to.
            squares: zeros (layers, samples); gets squared norms of the first samples' contributions to what is added.

        Returns:
            mean loss and number of errors, 0-d tensors on the device.
        """
        with nullcontext() if squares is None else self.sample_norms.recording(squares):
            loss, errors = (self._forward if squares is None else self.loss)(inputs, targets)
            (loss if weight == 1 else loss * weight).backward()
        return loss.detach(), errors

    def take_totals(self) -> Tensor:
        """Return sum of losses, errors and samples since the last call, (3,) float64 on the device, and reset them."""
        totals = self.totals.clone()
        self.totals.zero_()
        return totals

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean loss and number of errors of the replica as it stands, 0-d tensors on the device."""
        module: Any = self.replica.module
        outputs = self.outputs(inputs)
        return module.loss(outputs, targets), module.errors(outputs, targets)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the replica as it stands, float32."""
        if self.replica.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            outputs = self.replica.module(inputs)
        return outputs.float()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
