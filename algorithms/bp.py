"""Back-propagation through a network that is cut into modules: backward locked, exact gradients.

    g_k = ∂f(w^t)/∂w_k,   w_k^{t+1} = w_k^t − γ_t g_k                                          (eq. 5.2 to 5.5)

Whatever the number of modules, with `optimizer: sgd` this is sequential SGD to the bit, unless the network drops units:
modules after the first draw those from streams of their own.

Source: Huo, PhD thesis 2020, sections 5.2 and 6.2, where it is the baseline.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from algorithms.base import Step
from algorithms.pipeline import Features, Pipeline, Stage, Tape


class BP(Pipeline):
    """Back-propagation; the arguments are those of `Pipeline`."""

    locked: ClassVar[bool] = True
    tape: Tape | None = None

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Run the features forward, and record them on a tape."""
        self.tape = stage.record(self.w, features, track=True)
        return self.tape.outputs

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Take the gradient of this iteration."""
        assert self.tape is not None
        g, below = self.tape.backward(delta)
        self.tape = None
        self.optimizer_step(g, step)
        return below
