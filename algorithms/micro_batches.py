"""Pipelines whose modules take the gradient of a batch in micro-batches: the mean of theirs, by samples.

    g = Σ_i (b_i/B) ∂f_i(w)/∂w     over the micro-batches i = 1 … m of b_i samples, B in all

What a module adds up in which order is what sequential SGD with `run.micro_batch` does, so the bits are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from algorithms.base import Step, in_range, integer, zeros
from algorithms.pipeline import Features, Pipeline, Stage, StageInfo, Tape


class Play(NamedTuple):
    """A forward pass whose backward pass is to come.

    Attributes:
        features: what went into the module.
        tape: None if the micro-batch has no samples.
        version: weights that it was made with.
    """

    features: Features
    tape: Tape | None
    version: Tensor


@dataclass(kw_only=True, eq=False)
class MicroBatches(Pipeline):
    """One module of a method that cuts batches; the other arguments are those of `PipelineOptions`.

    Args:
        micro_batches: number m of micro-batches; of a batch with fewer samples the last ones are empty.

    Raises:
        ValueError: an argument is out of range.

    Attributes:
        g: (n,), what is added up of the batch so far.
    """

    waits_for_last: ClassVar[bool] = False

    micro_batches: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("micro_batches", integer("micro_batches", self.micro_batches), 1)

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """See `Pipeline.setup`."""
        super().setup(w, info)
        self.outputs = info.outputs
        self.plays: deque[Play] = deque()
        self.g = zeros(w.numel(), like=w)

    def play(self, stage: Stage, features: Features, version: Tensor, *, track: bool = True) -> Tensor:
        """Play a micro-batch at the weights `version`, on a tape that waits for its backward pass."""
        tape = stage.record(version, features, track=track) if features.share else None
        self.plays.append(Play(features, tape, version))
        return features.inputs.new_empty(0, *self.outputs) if tape is None else tape.outputs

    def play_back(self, delta: Tensor | None) -> Tensor | None:
        """Add the gradient of the oldest micro-batch to `g`, and return the error gradient of its inputs."""
        features, tape, _ = self.plays.popleft()
        if tape is None:
            return None
        if self.last and features.share != 1:
            # The loss is the micro-batch's mean. What comes from above has its share in it already.
            delta = self.w.new_tensor(features.share)
        g, below = tape.backward(delta)
        self.g.add_(g)
        return below

    def update(self, step: Step) -> None:
        """Update the weights along `g`, and begin the next batch."""
        self.optimizer_step(self.g, step)
        self.g.zero_()

    def retained(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the tapes of the micro-batches whose backward pass is to come, and the weights that they stash."""
        versions = [item.version for item in self.plays if item.version is not self.w]
        return versions, [item.tape for item in self.plays if item.tape is not None]


def order_1f1b(micro_batches: int, ahead: int) -> Sequence[str]:
    """Return a module's passes: so many forward `ahead`, then one forward and one backward in turn, then the rest.

    With m micro-batches and K − k ahead this is 1F1B with a flush, with all m ahead GPipe.
    """
    ahead = min(ahead, micro_batches)
    return ["forward"] * ahead + ["forward", "backward"] * (micro_batches - ahead) + ["backward"] * ahead
