"""DNI: decoupled neural interfaces, synthetic error gradients.

Each module but the last has a synthesizer S_k, which guesses the error gradient of its outputs from these and the
labels, so that the module need not wait:

    δ̂_k^t = S_k(h_k^t, y^t) / B,   g_k^t = ∂h_k^t/∂w_k · δ̂_k^t,   w_k^{t+1} = w_k^t − γ_t g_k^t
    module k + 1 sends δ_k^t = ∂h_{k+1}^t/∂h_k^t · δ̂_{k+1}^t (the loss's own gradient if it is the last)
    in iteration t + 1 S_k descends along its loss (1/B) Σ_i ‖S_k(h_k^t, y^t)_i − B δ_{k,i}^t‖²

Source: Huo, PhD thesis 2020, sections 5.5.1 and 6.5.1, after Jaderberg et al. 2017, "Decoupled neural interfaces using
synthetic gradients". With K = 1 this is back-propagation.

Ours, as the thesis does not say: S_k is two hidden 5x5 convolutions with batch norm and ReLU and a 5x5 output
convolution, as wide as the features; for flat features linear layers instead. Labels enter as planes of ones and zeros.
The output layer starts at zero, so at first modules before the last do not move. S_k predicts a sample's own error
gradient (B δ), whose size does not depend on the batch, and has an Adam of its own with rate `synthesizer_lr`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from algorithms.base import Message, Step, in_range, zeros
from algorithms.optimizer import Optimizer
from algorithms.pipeline import Features, Pipeline, Place, Stage, Tape
from algorithms.synthesizer import Synthesizer


class DNI(Pipeline):
    """DNI; the arguments up to `split` are those of `Pipeline`.

    Args:
        optimizer: see `Pipeline`.
        momentum: see `Pipeline`.
        nesterov: see `Pipeline`.
        weight_decay: see `Pipeline`.
        beta1: see `Pipeline`.
        beta2: see `Pipeline`.
        epsilon: see `Pipeline`.
        split: see `Pipeline`.
        synthesizer_lr: learning rate of the synthesizers' Adam.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        loss: 0-d, of the synthesizer when it last learned.
    """

    def __init__(
        self,
        *,
        optimizer: str = "sgd",
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        beta1: float | None = None,
        beta2: float | None = None,
        epsilon: float | None = None,
        split: Sequence[str] | None = None,
        synthesizer_lr: float = 1e-3,
    ) -> None:
        super().__init__(
            optimizer=optimizer,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
            split=split,
        )
        self.synthesizer_lr = in_range("synthesizer_lr", synthesizer_lr, 0)
        self.adam = Optimizer(optimizer="adam")

    def start(self, w: Tensor, place: Place) -> None:
        """See `Pipeline.start`."""
        super().start(w, place)
        self.synthesizer: Synthesizer | None = None
        if not self.last:
            self.synthesizer = Synthesizer(place.outputs, place.classes, place.seed, w.device)
            self.adam.start(self.synthesizer.weights)
        self.loss = zeros(like=w)
        self.tape: Tape | None = None
        self.now: Features | None = None
        self.before: Features | None = None

    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Play the features, on a tape."""
        self.tape = stage.record(self.w, features, track=True)
        self.now = features._replace(inputs=self.tape.outputs)
        return self.tape.outputs

    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Teach the synthesizer with what arrived, and take a synthetic gradient."""
        assert self.tape is not None and self.now is not None
        guess = None
        if self.synthesizer is not None:
            size = len(self.now.targets)
            if delta is not None and self.before is not None:
                self.loss, g = self.synthesizer.learn(self.before.inputs, self.before.targets, delta)
                self.adam(self.synthesizer.weights, g, self.synthesizer_lr)
            guess = self.synthesizer(self.now.inputs, self.now.targets) / size
            self.before = self.now
        g, below = self.tape.backward(guess)
        self.tape = None
        self.optimizer_step(g, step)
        return below

    def state(self) -> Message:
        """That of `Pipeline`, and the weights and moments of the synthesizer."""
        if self.synthesizer is None:
            return super().state()
        moments = {f"synthesizer_{name}": tensor for name, tensor in self.adam.state().items()}
        return super().state() | {"synthesizer": self.synthesizer.weights} | moments

    def kept(self) -> list[Message]:
        """The outputs whose error gradient arrives in the next iteration."""
        return [] if self.before is None else [self.before.state()]

    def keep(self, stage: Stage, kept: Sequence[Message]) -> None:
        """See `Pipeline.keep`."""
        self.before = Features.of(kept[0]) if kept else None

    def held(self) -> tuple[list[Tensor], list[Tape]]:
        """The outputs whose error gradient arrives in the next iteration; the synthesizer is not counted."""
        return ([] if self.before is None else [self.before.inputs]), []
