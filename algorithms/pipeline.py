"""The protocol between a pipeline method and whatever executes it.

A chain of blocks is cut into K modules; each has a contiguous piece of the flat weights, its own optimizer state, and
is one worker. In iteration t one batch goes forward through all modules, then every module goes backward with the error
gradient that the module after it sent: in the same iteration where the method is `locked`, in the one before where it
is not. A method never sees a network or a clock: it asks its `Stage` to play features, or to record them on a `Tape`
that can be played backwards.

Modules are counted from 0 in code (`rank`), from 1 in equations and messages.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from algorithms.base import Message, Stateful, Step, one_of
from algorithms.optimizer import Optimizer


class Features(NamedTuple):
    """What goes into a module in one iteration.

    Attributes:
        number: the iteration, counted from 0 (seeds dropout).
        inputs: [B, ...], the samples or what the module before made of them.
        targets: [B], class numbers.
    """

    number: int
    inputs: Tensor
    targets: Tensor

    def state(self) -> Message:
        """Return the features as named tensors."""
        return {"number": torch.tensor(self.number), "inputs": self.inputs, "targets": self.targets}

    @classmethod
    def of(cls, state: Message) -> Features:
        """Return what `state` made named tensors of."""
        return cls(int(state["number"]), state["inputs"], state["targets"])


class Tape(Protocol):
    """A forward pass that can be gone through backwards, once."""

    @property
    def outputs(self) -> Tensor:
        """What the module made of its inputs, without a graph."""
        ...

    def backward(self, delta: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the flat gradient of the module's weights, and the error gradient of its inputs (None for the first).

        `delta` is the error gradient of the outputs; None for the last module, which has the loss.
        """
        ...


class Stage(Protocol):
    """What a method may ask of its module."""

    def play(self, w: Tensor, features: Features, *, track: bool) -> Tensor:
        """Return the outputs at the module's flat weights `w`; with `track` the running statistics learn of them."""
        ...

    def record(self, w: Tensor, features: Features, *, track: bool) -> Tape:
        """Play, and keep what going backward needs.

        The tape holds on to `w` itself: what is written there before it is played backwards takes effect.
        """
        ...


class Place(NamedTuple):
    """Where a module is.

    Attributes:
        rank: from 0.
        workers: number of modules K.
        outputs: shape of what it makes of one sample.
        classes: number of classes.
        seed: of whatever the method draws.
    """

    rank: int
    workers: int
    outputs: tuple[int, ...]
    classes: int
    seed: int


class Pipeline(Stateful):
    """One module of a method that cuts the network.

    Args:
        optimizer: "sgd" or "adam", see `algorithms.optimizer.Optimizer`, as the arguments after it up to `epsilon`.
        momentum: heavy-ball coefficient.
        nesterov: use Nesterov's form of momentum.
        weight_decay: coefficient of the l2 term.
        beta1: of Adam; null takes the default.
        beta2: of Adam.
        epsilon: of Adam.
        split: names of the blocks at which modules 2 to K begin; None spreads the blocks evenly, see `cut`.

    Attributes:
        locked: whether a module's backward pass needs the error gradient of the same iteration.
        replays: forward passes that a module other than the last makes in its backward pass.
        direction: the gradient that the last update took, before weight decay, where `watched`; None where none was.
        watched: whether to keep `direction`.
        w: the module's flat weights, valid after `start`.
        rank: which module this is, from 0, valid after `start`.
    """

    cuts_network: ClassVar[bool] = True
    default_workers: ClassVar[int] = 2
    locked: ClassVar[bool] = False
    replays: ClassVar[int] = 0

    w: Tensor
    rank: int
    watched: bool = False
    direction: Tensor | None = None

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
    ) -> None:
        self.optimizer = Optimizer(
            optimizer=optimizer,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            beta1=beta1,
            beta2=beta2,
            epsilon=epsilon,
        )
        if isinstance(split, str) or (split is not None and not isinstance(split, Sequence)):
            raise ValueError(f"algorithm.split={split}: is no list; allowed: a list of names of blocks, or null")
        self.split = None if split is None else [str(name) for name in split]

    def start(self, w: Tensor, place: Place) -> None:
        """Take over `w` (not a copy) as the module's flat weights and allocate its state."""
        self.w = w
        self.rank, self.workers = place.rank, place.workers
        self.optimizer.start(w)

    @property
    def delay(self) -> int:
        """Iterations that the module's gradient is late where the method decouples: K − k."""
        return self.workers - 1 - self.rank

    @property
    def last(self) -> bool:
        """Whether the module has the loss."""
        return self.delay == 0

    @abstractmethod
    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Take the features of an iteration in, and return the module's outputs."""

    @abstractmethod
    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Go backward with what the module after sent, if anything; update; return what the module before gets."""

    def optimizer_step(self, g: Tensor, step: Step) -> None:
        """Update the weights along the gradient `g`, which is overwritten."""
        if self.watched:
            self.direction = g.clone()
        self.optimizer(self.w, g, step.lr)

    def skip_update(self) -> None:
        """Let the weights be in this iteration."""
        self.direction = None

    def state(self) -> Message:
        """`w` and the optimizer's tensors."""
        return {"w": self.w} | self.optimizer.state()

    def kept(self) -> list[Message]:
        """Return what is kept of earlier iterations, as named tensors of any shapes, the oldest first."""
        return []

    def keep(self, stage: Stage, kept: Sequence[Message]) -> None:
        """Take over what `kept` returned; called after `load_state`."""

    def held(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the tensors and tapes that are in memory for later iterations, the weights aside."""
        return [], []


def cut(blocks: Sequence[tuple[str, int]], workers: int, split: Sequence[str] | None) -> list[tuple[int, int]]:
    """Cut a chain into modules.

    Without `split`, units are counted as in the literature on decoupled training: every block but the last, the
    classifier, which joins the last module; ⌈units / K⌉ go to each module and the rest to the last (58 units of
    ResNet-110 make 29/29 and 15/15/15/13, 85 of ResNet-164 make 22/22/22/19). Ours, for short chains: where that leaves
    a module without weights, the blocks that own weights are spread instead, as evenly as they go, and each takes the
    blocks without weights that follow it along.

    Args:
        blocks: name and number of weights of each block.
        workers: number of modules K.
        split: names of the blocks at which modules 2 to K begin, or None.

    Returns:
        For each module, its first block and one past its last.

    Raises:
        ValueError: the chain is too short, or `split` does not fit it.
    """
    names = [name for name, _ in blocks]
    heavy = [i for i, (_, weights) in enumerate(blocks) if weights]
    if workers > len(heavy):
        raise ValueError(
            f"cluster.workers={workers}: the network has {len(heavy)} blocks with weights, and each module needs one; "
            f"allowed: 1 to {len(heavy)}"
        )
    if split is not None:
        return _given(blocks, names, workers, split)
    size = -(-(len(blocks) - 1) // workers) or 1
    starts = [size * k for k in range(workers)]
    if _fits(blocks, starts):
        return _spans(starts, len(blocks))
    pieces = torch.tensor(heavy).tensor_split(workers)
    return _spans([0, *(int(piece[0]) for piece in pieces[1:])], len(blocks))


def _given(
    blocks: Sequence[tuple[str, int]], names: list[str], workers: int, split: Sequence[str]
) -> list[tuple[int, int]]:
    shown = f"algorithm.split=[{','.join(split)}]"
    allowed = f"{workers - 1} of {', '.join(names[1:])}, in this order (cluster.workers={workers}), or null"
    for name in split:
        if name not in names[1:]:
            raise ValueError(f"{shown}: no module can begin at {name}; allowed: {allowed}")
    starts = [0, *(names.index(name) for name in split)]
    if len(split) != workers - 1:
        raise ValueError(f"{shown}: makes {len(split) + 1} modules; allowed: {allowed}")
    if any(a >= b for a, b in itertools.pairwise(starts)):
        raise ValueError(f"{shown}: is not in the order of the network; allowed: {allowed}")
    if not _fits(blocks, starts):
        raise ValueError(f"{shown}: leaves a module without weights; allowed: {allowed}, with weights in each module")
    return _spans(starts, len(blocks))


def _spans(starts: list[int], end: int) -> list[tuple[int, int]]:
    return list(zip(starts, [*starts[1:], end], strict=True))


def _fits(blocks: Sequence[tuple[str, int]], starts: list[int]) -> bool:
    """Whether every module has weights; `starts` may reach beyond the chain's end."""
    spans = _spans(starts, len(blocks))
    return all(sum(weights for _, weights in blocks[low:high]) for low, high in spans)


def check_start(start: str) -> str:
    """Check the option `start` of methods whose modules have no gradient at first.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    return one_of("start", start, ("skip", "zero"))
