"""The forward pass of a network as a run computes it: precision, order in memory, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from runner.gradients.replica import Replica


class NetworkForward:
    """Compute outputs and losses of a replica as it stands.

    Args:
        replica: the flattened network; its module has `loss(outputs, targets)` and `errors(outputs, targets)`.
        precision: "fp32", "tf32" or "bf16" (autocast; weights and gradients stay float32).
        compiled: compile forward and loss with `torch.compile` for batches of so many samples; another rounding. Other
            batches, such as an epoch's last, are not worth a compilation of their own.
    """

    def __init__(self, replica: Replica, *, precision: str = "fp32", compiled: int | None = None) -> None:
        self.replica = replica
        self.device = replica.weights.device
        self.precision = precision
        self._compiled_size = compiled
        # Not dynamic: there is only one size, and the compiled code may rely on it.
        self._compiled = self.loss if compiled is None else torch.compile(self.loss, dynamic=False)

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Compute with float32 arithmetic throughout, uncompiled: for differences that fewer digits would drown."""
        precision, size = self.precision, self._compiled_size
        self.precision, self._compiled_size = "fp32", None
        # These two switches belong to the process, not to this object, so they are put back as they were.
        tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            self.precision, self._compiled_size = precision, size
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32

    def forward_for(self, samples: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return what computes loss and errors of so many samples: `loss`, compiled or as it is."""
        return self._compiled if samples == self._compiled_size else self.loss

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean loss and number of errors of the replica as it stands, 0-d tensors on the device."""
        module: Any = self.replica.module
        outputs = self.outputs(inputs)
        return module.loss(outputs, targets), module.errors(outputs, targets)

    def outputs(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the replica as it stands, float32."""
        # Around the network alone: a loss in bf16 has three digits, too few to see it fall.
        with self._autocast():
            outputs = self.replica.module(self.arranged(inputs))
        # Loss and errors are computed in float32 also if the network is in bf16.
        return outputs.float()

    def arranged(self, inputs: Tensor) -> Tensor:
        """Return the inputs in the order in memory that the network has."""
        if self.replica.channels_last and inputs.dim() == 4:
            # Here too, not only in the weights: with one of the two in another order kernels
            # copy, and may round differently.
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()
