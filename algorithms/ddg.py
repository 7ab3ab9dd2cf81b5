"""DDG: decoupled parallel back-propagation with delayed gradients.

Module k of K applies in iteration t the exact gradient of iteration s = t − K + k:

    g_k^t = ∂f(w^s)/∂w_k on the batch of iteration s;  0 where s < 0                           (eq. 5.6 to 5.8)
    w_k^{t+1} = w_k^t − γ_t g_k^t                                                              (eq. 5.9)

so no module waits for the one after it: the error gradient that it needs was sent in the iteration before. With K = 1
this is back-propagation. `optimizer: adam` makes it algorithm 10.

Source: Huo, PhD thesis 2020, chapter 5, algorithms 9 and 10.

Options where the thesis and its authors' program differ:
    weights: "stashed" goes back through the weights of iteration s (the thesis). "current" goes back through the old
        activations, but where a derivative needs weights, through those of iteration t, as the program does.
    start: in its first K − k iterations module k has no gradient. "skip" leaves its weights, momentum and moments as
        they are; "zero" takes a gradient of zero (eq. 5.8), so that weight decay and momentum act.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from algorithms.base import Message, Step, one_of, zeros
from algorithms.pipeline import Features, Pipeline, Stage, StageInfo, Tape, check_start


class Pass(NamedTuple):
    """A forward pass whose backward pass is to come; `w` are the weights that it was made with."""

    features: Features
    w: Tensor
    tape: Tape


@dataclass(kw_only=True, eq=False)
class DDG(Pipeline):
    """One module of DDG; the other arguments are those of `PipelineOptions`.

    Args:
        weights: "stashed" or "current".
        start: "skip" or "zero".

    Raises:
        ValueError: an argument is out of range.
    """

    weights: str = "stashed"
    start: str = "skip"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("weights", self.weights, ("stashed", "current"))
        check_start(self.start)

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """See `Pipeline.setup`."""
        super().setup(w, info)
        self.passes: deque[Pass] = deque()
        self.copied: Tensor | None = None

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Run the features forward, on a tape that waits K − k iterations for its backward pass."""
        # With `current` weights only checkpoints need the copy: the tape must be recorded anew from it on resume.
        old = self.w if self.last else self.w.clone()
        # In memory from here on: with those of the K − k passes before it, the module holds K − k + 1 copies.
        self.copied = old
        tape = stage.record(old if self.weights == "stashed" else self.w, features, track=True)
        self.passes.append(Pass(features, old, tape))
        return tape.outputs

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Take the gradient of iteration t − K + k."""
        if len(self.passes) <= self.delay:
            if self.start == "zero":
                self.optimizer_step(zeros(self.w.numel(), like=self.w), step)  # eq. 5.8
            else:
                self.skip_update()
            return None
        g, below = self.passes.popleft().tape.backward(delta)  # eq. 5.6, 5.7
        self.optimizer_step(g, step)  # eq. 5.9
        return below

    def pending(self) -> list[Message]:
        """Return the features of the passes whose backward pass is to come, and the weights of each."""
        return [item.features.state() | {"w": item.w} for item in self.passes]

    def load_pending(self, stage: Stage, pending: Sequence[Message]) -> None:
        """Record the passes anew, each at its old weights: a graph cannot be saved."""
        self.passes.clear()
        now = self.w.clone()
        for state in pending:
            features, old = Features.of(state), state["w"]
            self.w.copy_(old)
            tape = stage.record(old if self.weights == "stashed" else self.w, features, track=False)
            self.passes.append(Pass(features, old, tape))
        self.w.copy_(now)

    def retained(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the features, stashed weights and tapes of the passes to come, and the weights stashed last."""
        copies = [item.w for item in self.passes] + ([] if self.copied is None else [self.copied])
        # With `current` weights the method has no use for the copies: only our checkpoints do, so they do not count.
        copies = copies if self.weights == "stashed" else []
        tensors = [item.features.inputs for item in self.passes] + [w for w in copies if w is not self.w]
        return tensors, [item.tape for item in self.passes]
