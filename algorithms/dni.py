"""DNI: decoupled neural interfaces, synthetic error gradients.

Each module but the last has a synthesizer S_k, which guesses the error gradient of its outputs from these and the
labels, so that the module need not wait:

    δ̂_k^t = S_k(h_k^t, y^t) / B,   g_k^t = ∂h_k^t/∂w_k · δ̂_k^t,   w_k^{t+1} = w_k^t − γ_t g_k^t
    module k + 1 sends δ_k^t = ∂h_{k+1}^t/∂h_k^t · δ̂_{k+1}^t (the loss's own gradient if it is the last)
    in iteration t + 1 S_k descends along its loss (1/B) Σ_i ‖S_k(h_k^t, y^t)_i − B δ_{k,i}^t‖²

Source: Huo, PhD thesis 2020, sections 5.5.1 and 6.5.1, after Jaderberg et al. 2017, "Decoupled neural interfaces using
synthetic gradients". With K = 1 this is back-propagation.

Decided here, since the thesis does not say: S_k is two hidden 5x5 convolutions with batch norm and ReLU and a 5x5
output convolution, as wide as the features; for flat features linear layers instead. Labels enter as planes of ones and
zeros. The output layer starts at zero, so at first modules before the last do not move. S_k predicts a sample's own
error gradient (B δ), whose size does not depend on the batch, and has an Adam of its own with rate `synthesizer_lr`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from algorithms.base import Message, Step, in_range, zeros
from algorithms.optimizer import Optimizer, OptimizerOptions
from algorithms.pipeline import Features, Pipeline, Stage, StageInfo, Tape
from algorithms.synthesizer import Synthesizer


@dataclass(kw_only=True, eq=False)
class DNI(Pipeline):
    """One module of DNI; the other arguments are those of `PipelineOptions`.

    Args:
        synthesizer_lr: learning rate of the synthesizers' Adam.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        loss: 0-d, of the synthesizer when it last learned.
    """

    synthesizer_lr: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("synthesizer_lr", self.synthesizer_lr, 0)

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """See `Pipeline.setup`."""
        super().setup(w, info)
        self.synthesizer: Synthesizer | None = None
        self.adam = Optimizer(OptimizerOptions(optimizer="adam"))
        if not self.last:
            self.synthesizer = Synthesizer(info.outputs, info.classes, info.seed, w.device)
            self.adam.start(self.synthesizer.weights)
        self.loss = zeros(like=w)
        self.tape: Tape | None = None
        self.now: Features | None = None
        self.before: Features | None = None

    @property
    def batch_lag(self) -> int:
        """See `Pipeline.batch_lag`: a guess is there in the batch's own iteration."""
        return 0

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Run the features forward, and record them on a tape."""
        self.tape = stage.record(self.w, features, track=True)
        self.now = features._replace(inputs=self.tape.outputs)
        return self.tape.outputs

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Train the synthesizer on the error gradient that arrived, then step along a synthetic gradient."""
        assert self.tape is not None and self.now is not None
        guess = None
        if self.synthesizer is not None:
            size = len(self.now.targets)
            if delta is not None and self.before is not None:
                self.loss, g = self.synthesizer.learn(self.before.inputs, self.before.targets, delta)
                # Beside the module's own graph, which waits for the guess.
                stage.note(self.synthesizer.held)
                self.adam(self.synthesizer.weights, g, self.synthesizer_lr)
            guess = self.synthesizer(self.now.inputs, self.now.targets) / size
            self.before = self.now
        g, below = self.tape.backward(guess)
        self.tape = None
        self.optimizer_step(g, step)
        return below

    def state(self) -> Message:
        """Return the tensors of `Pipeline`, and the weights and moments of the synthesizer."""
        if self.synthesizer is None:
            return super().state()
        moments = {f"synthesizer_{name}": tensor for name, tensor in self.adam.state().items()}
        return super().state() | {"synthesizer": self.synthesizer.weights} | moments

    def pending(self) -> list[Message]:
        """Return the outputs whose error gradient arrives in the next iteration."""
        return [] if self.before is None else [self.before.state()]

    def load_pending(self, stage: Stage, pending: Sequence[Message]) -> None:
        """See `Pipeline.load_pending`."""
        self.before = Features.of(pending[0]) if pending else None

    def retained(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the outputs whose error gradient arrives in the next iteration, the synthesizer, and the open tape."""
        tensors = [] if self.before is None else [self.before.inputs]
        if self.synthesizer is not None:
            tensors += [self.synthesizer.weights, *self.adam.state().values()]
        return tensors, [] if self.tape is None else [self.tape]

    def extra_operations(self) -> float:
        """Return those of a guess, and of learning: forward once more, and backward, which is two forward passes."""
        return 0.0 if self.synthesizer is None else 4 * self.synthesizer.operations
