"""PipeDream: an asynchronous pipeline without bubble, whose modules stash weights.

A module alternates between the forward pass of one batch and the backward pass of an earlier one (1F1B), so once the
pipeline is full every module is always busy. When module k of K takes batch t, the gradients of the K − k batches
before it are still to come, so it plays the batch at its version w_k^{(t−K+k)}, which has had t − K + k updates (none
where that is below 0). It stashes that version until the batch comes back:

    w^{(t+1)} = w^{(t)} − γ ∇f_t(w_1^{(t−K+1)}, w_2^{(t−K+2)}, …, w_K^{(t)})

Module k holds K − k + 1 versions. With K = 1 this is back-propagation.

Sources: Narayanan et al., "PipeDream: Generalized pipeline parallelism for DNN training", SOSP 2019; for
SpecTrain Chen, Yang and Cheng, "Efficient and robust parallel DNN training through model parallelism on multi-GPU
platform", 2018, arXiv 1809.02839. The equations are second hand: written down from accounts of the papers.

    weights: stashed   the above. These are the weights of DDG with stashed weights and `start=skip`, to the bit: the
                       methods differ in when a module computes, and so in their time.
             vertical  vertical sync: every module plays a batch at the version that the first one used,

                           w^{(t+1)} = w^{(t)} − γ ∇f_t(w_1^{(t−K+1)}, w_2^{(t−K+1)}, …, w_K^{(t−K+1)})

                       so this is SGD whose gradients are K − 1 updates late. Each module holds K versions.
             current   no stashing: back through the old activations, but the current weights. Not a gradient of f at
                       any weights; the paper's reason for stashing.
             predicted SpecTrain: a batch is played at the weights that are foreseen for the update that it makes, K − k
                       updates ahead along the momentum v, and comes back through the weights that are there then:

                           ŵ_k = w_k − (K − k) γ v_k                       (Chen et al. 2018: Ŵ_{t+s} = W_t − s η v)

                       Nothing is stashed, and gradients are of about the present weights.

Decided here: each module is one worker (the paper also replicates modules), batches are as many as `run.epochs` says,
so the gradients that are under way at the end are not applied, and evaluations see each module's latest version.
SpecTrain counts s in the time slots of its own pipeline; here s is the number of updates that are still to come. Its v
is a mean of gradients, ours PyTorch's momentum; with either a step of SGD is γ v. With Nesterov's form, whose steps are
γ (g + μ v), the prediction is along v all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from algorithms.base import Message, Step, one_of
from algorithms.pipeline import Features, Pipeline, Stage, StageInfo, Tape


class Play(NamedTuple):
    """A forward pass whose backward pass is to come."""

    features: Features
    tape: Tape


@dataclass(kw_only=True, eq=False)
class PipeDream(Pipeline):
    """One module of PipeDream; the other arguments are those of `PipelineOptions`.

    Args:
        weights: "stashed", "vertical", "current" or "predicted".

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        versions: the weights of the last forward passes, the oldest first.
    """

    waits_for_last: ClassVar[bool] = False

    weights: str = "stashed"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("weights", self.weights, ("stashed", "vertical", "current", "predicted"))
        if self.weights == "predicted" and not self.momentum:
            what = "they are predicted along the momentum of sgd, and there is none"
            raise ValueError(f"algorithm.weights=predicted: {what}; allowed: stashed, vertical, current")

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """See `Pipeline.setup`."""
        super().setup(w, info)
        # The first module is that many updates behind this one, which with vertical sync must keep them.
        self.behind = self.rank if self.weights == "vertical" else 0
        self.plays: deque[Play] = deque()
        self.versions: deque[Tensor] = deque()
        self.predicted = self.w.clone() if self.weights == "predicted" else None
        # γ of the last update.
        self.rate = torch.zeros((), dtype=torch.float64)

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Play batch t at its version, on a tape that waits K − k iterations for its backward pass."""
        # If the backward pass comes next, before any update, there is nothing to stash. Without stashing only
        # checkpoints need the copies: a tape must be recorded anew on resume.
        self.versions.append(self.w if self.last and not self.behind else self.w.clone())
        if self.predicted is not None and not self.last:
            assert self.apply_gradient.v is not None
            self.versions[-1].add_(self.apply_gradient.v, alpha=-self.delay * float(self.rate))
        self.plays.append(Play(features, self._record(stage, features, self._version(0), track=True)))
        return self.plays[-1].tape.outputs

    def _version(self, ago: int) -> Tensor:
        """Return the weights at which the batch is played that came so many iterations ago."""
        # Before the first update all versions are the initial weights.
        return self.versions[max(0, len(self.versions) - 1 - ago - self.behind)]

    def _record(self, stage: Stage, features: Features, version: Tensor, *, track: bool) -> Tape:
        if self.predicted is not None:
            # One buffer for all tapes, since none of them comes back through what it was played at.
            self.predicted.copy_(version)
            version = self.predicted
        return stage.record(self.w if self.weights == "current" else version, features, track=track)

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Take the gradient of batch t − K + k, if there is one."""
        below = None
        if len(self.plays) <= self.delay:
            self.skip_update()
        else:
            if self.predicted is not None:
                self.predicted.copy_(self.w)
            g, below = self.plays.popleft().tape.backward(delta)
            # w^{(t+1)} = w^{(t)} − γ ∇f_t
            self.optimizer_step(g, step)
            self.rate.fill_(step.lr)
        while len(self.versions) > len(self.plays) + self.behind:
            self.versions.popleft()
        return below

    def state(self) -> Message:
        """Return the tensors of `Pipeline`, and γ where it is needed."""
        return super().state() | ({} if self.predicted is None else {"rate": self.rate})

    def pending(self) -> list[Message]:
        """Return the versions, and the features of the passes whose backward pass is to come."""
        return [{"w": version} for version in self.versions] + [item.features.state() for item in self.plays]

    def load_pending(self, stage: Stage, pending: Sequence[Message]) -> None:
        """Record the passes anew, each at its version: a graph cannot be saved."""
        self.versions = deque(state["w"] for state in pending if "w" in state)
        features = [Features.of(state) for state in pending if "w" not in state]
        self.plays.clear()
        now = self.w.clone()
        for ago, item in zip(reversed(range(len(features))), features, strict=True):
            version = self._version(ago)
            self.w.copy_(version)
            self.plays.append(Play(item, self._record(stage, item, version, track=False)))
        self.w.copy_(now)

    def retained(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the versions, and the features and tapes of the passes to come."""
        # Without stashing the method has no use for the copies: only our checkpoints do, so they do not count.
        versions = [w for w in self.versions if w is not self.w]
        if self.weights in ("current", "predicted"):
            versions = [] if self.predicted is None else [self.predicted]
        return versions + [item.features.inputs for item in self.plays], [item.tape for item in self.plays]
