"""How far a method's direction agrees with the gradient: the constant σ of the sufficient direction, module by module.

    σ_k = Σ_t ⟨∇_k f_s(w^t), g_k^t⟩ / Σ_t ‖∇_k f_s(w^t)‖²                                      (eq. 6.10)

over all iterations since the evaluation before, with f_s the loss of the batch that g_k^t is of, and w^t the weights
that it is applied to: 1 where nothing is late, above 0 where a step descends. Eq. 6.10 has the full gradient and an
expectation of g over batches; on one and the same batch both sides see it, and what is left is what is late in g: the
weights that features and error gradients come from. With weights that do not move every σ is 1. A module that rests has
a direction of zero; iterations in which it has no batch yet do not count.

Deviation: the expectation's place is taken by the sum over iterations.

Costs a pass through the whole network for every delay that modules have, K of them with DDG and FR, so training takes
about 1 + K times as long; none of that counts on the virtual clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.pipeline import Features
from runner.gradients.pipeline_stage import PipelineStage


class Directions:
    """Sums of a stretch of iterations.

    Args:
        workers: number of modules K.
        device: where to sum.
    """

    def __init__(self, workers: int, device: torch.device) -> None:
        self._sums = torch.zeros(2, workers, dtype=torch.float64, device=device)

    def exact(
        self, stages: Sequence[PipelineStage], numbers: Sequence[int], features: Callable[[int], Features]
    ) -> Tensor:
        """Return the modules' gradients at the present weights, each on the batch of an iteration of its own.

        Neither losses nor running statistics nor memory learn of it.

        Args:
            stages: the modules.
            numbers: which iteration each module's next direction is of; below 0 if it has none yet.
            features: returns what went into the first module in an iteration.

        Returns:
            A flat vector of the network (n,), a copy; zero where a module has no iteration, which then does not count.
        """
        found = [torch.zeros_like(stage.weights) for stage in stages]
        # Modules whose directions are of the same batch share a pass, as all of them do without delays.
        for number in sorted({number for number in numbers if number >= 0}):
            ranks = [rank for rank, own in enumerate(numbers) if own == number]
            gradients = module_gradients(stages, features(number), ranks[0])
            for rank in ranks:
                found[rank] = gradients[rank]
        return torch.cat(found)

    def add(self, exact: Tensor, taken: Sequence[Tensor | None], pieces: Sequence[Sequence[int]]) -> None:
        """Add an iteration: the flat gradient, and the direction that each module took."""
        for k, (direction, piece) in enumerate(zip(taken, pieces, strict=True)):
            # In float64: sums over many iterations of products of either sign.
            g = exact[piece[0] : piece[1]].double()
            if direction is not None:
                self._sums[0, k] += g @ direction.double()
            self._sums[1, k] += g @ g

    def take(self) -> dict[str, float]:
        """Return σ by module since the last call; NaN for one that has taken no direction."""
        # 0 / 0 is NaN on purpose: zero would read like a direction at right angles to the gradient.
        values = (self._sums[0] / self._sums[1]).tolist()
        self._sums.zero_()
        return {f"module{k}": value for k, value in enumerate(values, start=1)}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums."""
        return {"sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums.copy_(state["sums"])


def module_gradients(stages: Sequence[PipelineStage], features: Features, lowest: int) -> dict[int, Tensor]:
    """Return the gradients, by rank from `lowest` on, of back-propagation through all modules at their weights.

    Through the modules, not through the network as a whole: each draws the units that it drops from its own stream.
    """
    tapes, counted = [], [stage.method for stage in stages]
    oracle = stages[0].oracle
    with oracle.uncounted():
        for stage in stages:
            # These passes are no part of what the method needs in memory.
            stage.method = None
            tapes.append(stage.record(stage.weights, features, track=False))
            features = features._replace(inputs=tapes[-1].outputs)
    for stage, method in zip(stages, counted, strict=True):
        stage.method = method
    found, delta = {}, None
    # Down to the lowest module that is asked for: below it nobody wants a gradient of this batch.
    for rank in reversed(range(lowest, len(stages))):
        gradient, delta = tapes[rank].backward(delta)
        found[rank] = gradient.clone()
    return found
