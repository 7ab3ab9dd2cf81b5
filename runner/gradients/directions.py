"""How far a method's direction agrees with the gradient: the constant σ of the sufficient direction, module by module.

    σ_k = Σ_t ⟨∇_k f_t(w^t), g_k^t⟩ / Σ_t ‖∇_k f_t(w^t)‖²                                      (eq. 6.10)

over all iterations since the evaluation before, with f_t the loss of the batch of iteration t: 1 for back-propagation,
above 0 where a step descends. A module that rests has a direction of zero. Costs a gradient of the whole network for
every iteration, so training takes about twice as long; none of that counts on the virtual clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Batch
from runner.gradients.oracle import NetworkOracle


class Directions:
    """Sums of a stretch of iterations.

    Args:
        workers: number of modules K.
        device: where to sum.
    """

    def __init__(self, workers: int, device: torch.device) -> None:
        self._sums = torch.zeros(2, workers, dtype=torch.float64, device=device)

    def exact(self, oracle: NetworkOracle, batch: Batch) -> Tensor:
        """Return the gradient at the replica's weights, without counting its loss."""
        # A copy: the modules' own backward passes come next, and oracles reuse their vector.
        return oracle.reference_gradient(oracle.replica.weights, batch).clone()

    def add(self, exact: Tensor, taken: Sequence[Tensor | None], pieces: Sequence[Sequence[int]]) -> None:
        """Add an iteration: the flat gradient, and the direction that each module took."""
        for k, (direction, piece) in enumerate(zip(taken, pieces, strict=True)):
            # In float64: sums over many iterations of products of either sign.
            g = exact[piece[0] : piece[1]].double()
            if direction is not None:
                self._sums[0, k] += g @ direction.double()
            self._sums[1, k] += g @ g

    def take(self) -> dict[str, float]:
        """Return σ by module since the last call."""
        values = (self._sums[0] / self._sums[1]).tolist()
        self._sums.zero_()
        return {f"module{k}": value for k, value in enumerate(values, start=1)}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return {"sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums.copy_(state["sums"])
