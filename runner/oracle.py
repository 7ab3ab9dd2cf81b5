"""The oracle of a neural network on a data set: gradients at given weights on given samples.

It also counts what training reports (loss, errors, samples), on the device, so that no step waits for a number.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from runner.replica import Replica
from runner.seeds import derive


class Sample(Protocol):
    """A batch as methods hand it back; see `algorithms.base.Batch`."""

    @property
    def number(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def ids(self) -> Tensor: ...


class NetworkOracle:
    """Answer a method's questions about the training loss of a network.

    Args:
        replica: the flattened network; its module has `loss(outputs, targets)` and `errors(outputs, targets)`.
        split: training samples, `batch(ids, seed=, epoch=)`.
        seed: the run's seed, for augmentation and dropout.
        precision: "fp32", "tf32" or "bf16" (autocast; weights and gradients stay float32).
        compiled: compile forward and loss with `torch.compile`.

    Attributes:
        totals: (3,) float64 on the device: sum of losses, errors and samples since `take_totals`.
    """

    def __init__(
        self, replica: Replica, split: Any, *, seed: int, precision: str = "fp32", compiled: bool = False
    ) -> None:
        self.replica = replica
        self.split = split
        self.seed = seed
        self.device = replica.weights.device
        self.precision = precision
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        self._forward = torch.compile(self.loss, dynamic=False) if compiled else self.loss
        self._has_dropout = any(isinstance(m, nn.modules.dropout._DropoutNd) for m in replica.module.modules())

    def gradient(self, w: Tensor, batch: Sample) -> Tensor:
        """Return the mean gradient over the batch at the flat weights `w`, as a flat vector that the next call reuses.

        An empty batch has a zero gradient and leaves the batch statistics as they were.
        """
        replica = self.replica
        if w.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(w)
        replica.gradient.zero_()
        size = batch.ids.numel()
        if size == 0:
            return replica.gradient
        if self._has_dropout:
            torch.manual_seed(derive(self.seed, "dropout", batch.number))
        inputs, targets = self.split.batch(batch.ids, seed=self.seed, epoch=batch.epoch)
        replica.module.train()
        loss, errors = self._forward(inputs, targets)
        loss.backward()
        with torch.no_grad():
            self.totals[0] += loss.detach() * size
            self.totals[1] += errors
            self.totals[2] += size
        return replica.gradient

    def take_totals(self) -> Tensor:
        """Return sum of losses, errors and samples since the last call, (3,) float64 on the device, and reset them."""
        totals = self.totals.clone()
        self.totals.zero_()
        return totals

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean loss and number of errors of the replica as it stands, 0-d tensors on the device."""
        module = self.replica.module
        if self.replica.channels_last and inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            outputs = module(inputs)
        outputs = outputs.float()
        return module.loss(outputs, targets), module.errors(outputs, targets)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
