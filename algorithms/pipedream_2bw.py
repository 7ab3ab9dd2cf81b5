"""PipeDream-2BW: an asynchronous pipeline over micro-batches with two versions of the weights.

Each batch is cut into m micro-batches, and modules go on with the next batch without a flush (1F1B). All micro-batches
of batch t are played, in every module, at the weights before the last batch's update, and come back through them:

    w^{(t+1)} = w^{(t)} − γ ∇f_t(w^{(t−1)})                          (the first batch's at w^{(0)})

so gradients are one update late, however many modules there are. A module needs the versions t − 1 and t − 2 alone:
when it takes batch t, K − k micro-batches of batch t − 1 are still to come back, which must not be more than m. So
m ≥ K − 1 is needed here; the paper has m ≥ K.

Source: Narayanan et al., "Memory-efficient pipeline-parallel DNN training", ICML 2021, arXiv 2006.09503. The
equation is second hand: written down from accounts of the paper.

Decided here: the executor's weights are the newest version, which an update changes in place, so a module holds copies
of both versions that micro-batches under way need: three versions with the newest. Gradients that are under way at the
end are not applied, and evaluations see each module's newest version. Batch norm as in `gpipe`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.base import Message, Step
from algorithms.micro_batches import MicroBatches
from algorithms.pipeline import Features, Stage, StageInfo, Tape


@dataclass(kw_only=True, eq=False)
class PipeDream2BW(MicroBatches):
    """One module of PipeDream-2BW; its arguments are those of `MicroBatches`.

    Attributes:
        versions: weights by number of updates.
        count: number of updates, and of micro-batches in `g` (2,).
    """

    def check_workers(self, workers: int) -> None:
        """See `Pipeline.check_workers`."""
        if self.micro_batches < workers - 1:
            wrong = f"with cluster.workers={workers} some gradients would come more than one update late"
            raise ValueError(f"algorithm.micro_batches={self.micro_batches}: {wrong}; allowed: {workers - 1} or more")

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """See `Pipeline.setup`."""
        super().setup(w, info)
        self.versions: dict[int, Tensor] = {}
        self.count = torch.zeros(2, dtype=torch.int64)

    @property
    def batch_lag(self) -> int:
        """See `Pipeline.batch_lag`: batches come back in the next iteration, but of the last module."""
        return 0 if self.last else 1

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Play a micro-batch of batch t at w^{(t−1)}."""
        needed = version_of(features.number)
        # Older ones have those passes that are under way.
        self.versions = {number: w for number, w in self.versions.items() if number >= needed}
        if needed not in self.versions:
            self._keep()
        return self.play(stage, features, self.versions[needed])

    def _keep(self) -> None:
        """Keep a copy of the newest version, at which batches are to be played."""
        self.versions.setdefault(int(self.count[0]), self.w.clone())

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Add the gradient of the micro-batch that came K − k before; after the last one of a batch, update."""
        if len(self.plays) <= self.delay:
            return None
        below = self.play_back(delta)
        self.count[1] += 1
        if self.count[1] == self.micro_batches:
            # w^{(t+1)} = w^{(t)} − γ ∇f_t(w^{(t−1)})
            self._keep()
            self.update(step)
            self.count.copy_(torch.stack([self.count[0] + 1, self.count[1] - self.micro_batches]))
        return below

    def state(self) -> Message:
        """Return the tensors of `Pipeline`, and what is added up of the next update."""
        return super().state() | {"g": self.g, "count": self.count}

    def _held(self) -> dict[int, Tensor]:
        """Return the versions that are in memory."""
        return {version_of(item.features.number): item.version for item in self.plays} | self.versions

    def pending(self) -> list[Message]:
        """Return the versions, and the features of the micro-batches that are to come back."""
        versions = [{"version": torch.tensor(number), "w": w} for number, w in self._held().items()]
        return versions + [item.features.state() for item in self.plays]

    def load_pending(self, stage: Stage, pending: Sequence[Message]) -> None:
        """Record the passes anew, each at its version: a graph cannot be saved."""
        self.versions = {int(state["version"]): state["w"] for state in pending if "version" in state}
        self.plays.clear()
        for features in (Features.of(state) for state in pending if "version" not in state):
            self.play(stage, features, self.versions[version_of(features.number)], track=False)

    def retained(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the versions that are held, and the tapes of the micro-batches that are to come back."""
        return list(self._held().values()), super().retained()[1]


def version_of(batch: int) -> int:
    """Return the number of updates of the weights at which a batch is played, both counted from 0."""
    return max(0, batch - 1)
