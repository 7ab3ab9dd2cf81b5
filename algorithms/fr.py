"""FR: features replay.

Every module keeps its last K − k + 1 inputs. In the backward pass of iteration t module k replays the one of iteration
s = t + k − K through its current weights, and goes back with the error gradient that module k + 1 sent in iteration
t − 1, where it replayed the same batch:

    play     h_k^t = F_k(h_{k−1}^t; w_k^t)                                                     (alg. 11, line 6)
    replay   h̃_k^t = F_k(h_{k−1}^s; w_k^t)                                                     (line 11)
    g_k^t = ∂h̃_k^t/∂w_k · δ_k^t,   δ_{k−1}^{t+1} = ∂h̃_k^t/∂h_{k−1}^s · δ_k^t                   (eq. 6.7 to 6.9)
    w_k^{t+1} = w_k^t − γ_t g_k^t                                                              (line 13)

With K = 1 this is back-propagation: the last module's replay is its play, and made once.

Source: Huo, PhD thesis 2020, chapter 6, algorithm 11. Inputs before the first iteration are zero, and so are their
error gradients and gradients.

Decided here, since the thesis does not say:
    start: "zero" takes that gradient of zero, so that weight decay and momentum act; "skip" leaves the module as it is
        in its first K − k iterations. A batch of zeros is not replayed, and does not count in running statistics.
    statistics: the running statistics of batch norm learn of each batch "once", from the replay, or "twice", from the
        play as well, as in the authors' program. In the last module, once.
The units that a replay drops are those that the play dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from algorithms.base import Message, Step, one_of, zeros
from algorithms.pipeline import Features, Pipeline, Stage, StageInfo, Tape, check_start


@dataclass(kw_only=True, eq=False)
class FR(Pipeline):
    """Features replay; the other arguments are those of `PipelineOptions`.

    Args:
        start: "zero" or "skip".
        statistics: "once" or "twice".

    Raises:
        ValueError: an argument is out of range.
    """

    replays: ClassVar[int] = 1

    start: str = "zero"
    statistics: str = "once"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_start(self.start)
        one_of("statistics", self.statistics, ("once", "twice"))

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """See `Pipeline.setup`."""
        super().setup(w, info)
        self.history: deque[Features] = deque()
        self.tape: Tape | None = None

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Store the features and play them; the last module's play is its replay."""
        self.history.append(features)
        if self.last:
            self.tape = stage.record(self.w, features, track=True)
            return self.tape.outputs
        return stage.play(self.w, features, track=self.statistics == "twice")  # line 6

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Replay the features of iteration t + k − K and go back."""
        if len(self.history) <= self.delay:
            if self.start == "zero":
                self.optimizer_step(zeros(self.w.numel(), like=self.w), step)
            else:
                self.skip_update()
            return None
        tape = self.tape or stage.record(self.w, self.history[0], track=True)  # line 11
        self.tape = None
        self.history.popleft()
        g, below = tape.backward(delta)  # eq. 6.8, 6.9
        self.optimizer_step(g, step)  # line 13
        return below

    def pending(self) -> list[Message]:
        """Return the features that are still to be replayed."""
        return [features.state() for features in self.history]

    def load_pending(self, stage: Stage, pending: Sequence[Message]) -> None:
        """See `Pipeline.load_pending`."""
        self.history = deque(Features.of(state) for state in pending)

    def retained(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the features that are still to be replayed."""
        return [features.inputs for features in self.history], []
