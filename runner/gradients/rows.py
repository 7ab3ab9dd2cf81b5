"""Single samples of an objective with one weight a feature, as methods ask for them; see `algorithms.base.Rows`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


def rows_of(split: Any, ids: Tensor) -> tuple[Any, Tensor]:
    """Return samples of a split as the rows of a matrix (B, d), and their targets (B,).

    A split that holds its samples has `rows`. Where it keeps them compressed they stay so: dense, a batch could be a
    thousand times as large.
    """
    if hasattr(split, "rows"):
        return split.rows(ids)
    inputs, targets = split.batch(ids)
    return inputs if inputs.dim() == 2 else inputs.flatten(1), targets


class ObjectiveRows:
    """Answer for the samples of one question.

    Args:
        module: a model with `losses`, `slopes`, `gradients` and `curvatures` (`models.objective.RowObjective`); for
            dual methods `linear_slopes` and `dual_step` as well.
        x: the samples (B, d), a tensor or compressed rows.
        targets: (B,).
        add_sums: is told the sums of losses, errors and samples of what is asked; None to count nothing.
    """

    def __init__(self, module: Any, x: Any, targets: Tensor, add_sums: Callable[[Any, Any, int], None] | None) -> None:
        self.module = module
        self.x = x
        self.targets = targets
        self.add_sums = add_sums

    @property
    def linear_slopes(self) -> bool:
        """See `algorithms.base.Rows`."""
        return self.module.linear_slopes

    def slopes(self, w: Tensor) -> Tensor:
        """See `algorithms.base.Rows`."""
        w, z = self._outputs(w)
        # A model may know how to answer both at once, for samples in CPU memory.
        if self.add_sums is not None and z.is_cpu and hasattr(self.module, "slopes_and_score"):
            slopes, loss, errors = self.module.slopes_and_score(z, self.targets)
            self.add_sums(loss, errors, self.targets.numel())
            return slopes
        with torch.no_grad():
            self._score(w, z)
            return self.module.slopes(z, self.targets)

    @torch.no_grad()
    def gradients(self, w: Tensor) -> Tensor:
        """See `algorithms.base.Rows`."""
        w, z = self._outputs(w)
        self._score(w, z)
        return self.module.gradients(w, self.x, z, self.targets)

    @torch.no_grad()
    def curvatures(self) -> Tensor:
        """See `algorithms.base.Rows`."""
        return self.module.curvatures(self.x)

    def vectors(self) -> list[tuple[Any, Any]]:
        """See `algorithms.base.Rows`."""
        if not isinstance(self.x, Tensor):
            return self.x.vectors()
        return [(slice(None), values) for values in self.x.double().cpu().numpy()]

    def dual_step(self, number: int, z: float, alpha: float, curvature: float) -> float:
        """See `algorithms.base.Rows`."""
        return self.module.dual_step(self._numbers[number], z, alpha, curvature)

    @torch.no_grad()
    def count(self, w: Tensor) -> None:
        """See `algorithms.base.Rows`."""
        self._score(*self._outputs(w))

    @cached_property
    def _numbers(self) -> list[float]:
        """The targets as plain numbers: steps are taken one by one, and to read an element of a tensor takes long."""
        return self.targets.tolist()

    def _outputs(self, w: Tensor) -> tuple[Tensor, Tensor]:
        # On processes a server's weights come in CPU memory, wherever the samples are.
        if w.device != self.x.device:
            w = w.to(self.x.device)
        w = w.detach()
        return w, self.x @ w

    def _score(self, w: Tensor, z: Tensor) -> None:
        """Count losses and errors of the outputs, unless the method asked not to: such do not enter the training loss.

        Counted where the outputs are known anyway: a second pass for the loss would cost as much as the answer.
        """
        if self.add_sums is not None:
            losses, errors = self.module.losses(w, z, self.targets).sum(), self.module.errors(z[:, None], self.targets)
            self.add_sums(losses, errors, self.targets.numel())
