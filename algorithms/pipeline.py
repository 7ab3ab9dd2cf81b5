"""The protocol between a pipeline method and whatever executes it.

A chain of blocks is cut into K modules; each has a contiguous piece of the flat weights, its own optimizer state, and
is one worker. In iteration t one batch goes forward through all modules, then every module goes backward with the error
gradient that the next module sent: in the same iteration if the method is `locked`, in the previous one if it is not. A
method never sees a network or a clock: it asks its `Stage` to play features, or to record them on a `Tape` that can be
played backwards.

A method may cut each batch into micro-batches, and says in which order its module plays them and goes back
(`pass_order`): then the module before it need not be through with the whole batch. Features and error gradients travel
by micro-batch.

Modules may be in different processes, in a simulation too: a module knows of another only what it was sent.

Modules are counted from 0 in code (`rank`), from 1 in equations and messages.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from algorithms.base import Message, Stateful, Step, one_of
from algorithms.optimizer import Optimizer, OptimizerOptions


class Features(NamedTuple):
    """What goes into a module in one iteration.

    Attributes:
        number: the iteration, counted from 0 (seeds dropout).
        inputs: [B, ...], the samples or what the module before made of them.
        targets: [B], class numbers.
        piece: which micro-batch of the iteration's batch, from 0 (seeds dropout).
        pieces: number of micro-batches that have samples; a batch that is too short leaves none for the later ones.
        share: of the batch's samples that are in this micro-batch.
    """

    number: int
    inputs: Tensor
    targets: Tensor
    piece: int = 0
    pieces: int = 1
    share: float = 1.0

    def state(self) -> Message:
        """Return the features as named tensors."""
        whole = {"number": torch.tensor(self.number), "inputs": self.inputs, "targets": self.targets}
        if self[3:] == (0, 1, 1.0):
            return whole
        return whole | {"piece": torch.tensor([self.piece, self.pieces]), "share": torch.tensor(self.share).double()}

    @classmethod
    def of(cls, state: Message) -> Features:
        """Return the features that `state` turned into named tensors."""
        whole = cls(int(state["number"]), state["inputs"], state["targets"])
        if "piece" not in state:
            return whole
        piece, pieces = state["piece"].tolist()
        return whole._replace(piece=piece, pieces=pieces, share=float(state["share"]))


class Tape(Protocol):
    """A forward pass that can be back-propagated through, once."""

    @property
    def outputs(self) -> Tensor:
        """What the module made of its inputs, without a graph."""
        ...

    def backward(self, delta: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the flat gradient of the module's weights, and the error gradient of its inputs (None for the first).

        `delta` is the error gradient of the outputs; for the last module, which has the loss, a factor of it or None.
        """
        ...


class Stage(Protocol):
    """What a method may ask of its module."""

    def play(self, w: Tensor, features: Features, *, track: bool) -> Tensor:
        """Return the outputs at the module's flat weights `w`; with `track` the running statistics learn of them."""
        ...

    def record(self, w: Tensor, features: Features, *, track: bool) -> Tape:
        """Play, and keep what the backward pass needs.

        The tape holds on to `w` itself: what is written there before it is played backwards takes effect.
        """
        ...

    def note(self, storages: Mapping[int, int]) -> None:
        """Take note of what the method holds for a moment, besides what `Pipeline.retained` returns.

        Args:
            storages: bytes of each piece of memory, by its address.
        """
        ...


class StageInfo(NamedTuple):
    """Facts about a module and its network, for the method.

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


@dataclass(kw_only=True, eq=False)
class PipelineOptions(OptimizerOptions):
    """The arguments of every pipeline method: those of `OptimizerOptions`, and where the network is cut.

    Args:
        split: names of the blocks at which modules 2 to K begin; None spreads the blocks evenly, see
            `algorithms.partition`.

    Raises:
        ValueError: an argument is out of range.
    """

    split: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        split = self.split
        if isinstance(split, str) or (split is not None and not isinstance(split, Sequence)):
            raise ValueError(f"algorithm.split={split}: is not a list; allowed: a list of names of blocks, or null")
        self.split = None if split is None else [str(name) for name in split]


class Pipeline(PipelineOptions, Stateful):
    """One module of a method that cuts the network; its arguments are those of `PipelineOptions`.

    A method with arguments of its own is a dataclass with these as fields, keyword-only like those it inherits.

    Attributes:
        locked: whether a module's backward pass needs the error gradient of the same iteration.
        waits_for_last: whether, on the virtual clock, modules go backward when the batch is through the last of them,
            as in the model of Huo's thesis; if not, each one as soon as it has its error gradient.
        micro_batches: number of micro-batches into which every batch is cut.
        replays: forward passes that a module other than the last makes in its backward pass.
        keeps_direction: whether to keep `direction`, for diagnostics.
        direction: the gradient that the last update took, before weight decay; None if there was none.
        w: the module's flat weights, valid after `setup`.
        rank: which module this is, from 0, valid after `setup`.
    """

    cuts_network: ClassVar[bool] = True
    default_workers: ClassVar[int] = 2
    locked: ClassVar[bool] = False
    waits_for_last: ClassVar[bool] = True
    replays: ClassVar[int] = 0

    w: Tensor
    rank: int
    micro_batches: int = 1
    keeps_direction: bool = False
    direction: Tensor | None = None

    def check_workers(self, workers: int) -> None:
        """Check that the options fit the number of modules K.

        Raises:
            ValueError: naming the key, the value and what is allowed.
        """

    def setup(self, w: Tensor, info: StageInfo) -> None:
        """Take over `w` (not a copy) as the module's flat weights and allocate the method's state.

        It has another name than `ParameterServer.start` since `start` is an option of some of these methods.
        """
        self.w = w
        self.rank, self.workers = info.rank, info.workers
        self.apply_gradient = Optimizer(self)
        self.apply_gradient.start(w)

    @property
    def delay(self) -> int:
        """Number K − k of iterations by which the module's gradient is late if the method is not `locked`."""
        return self.workers - 1 - self.rank

    @property
    def batch_lag(self) -> int:
        """Number of iterations between the one whose batch the module's gradient is of, and the one that takes it."""
        return 0 if self.locked else self.delay

    @property
    def last(self) -> bool:
        """Whether the module has the loss."""
        return self.delay == 0

    def pass_order(self) -> list[str]:
        """Return what the module does in an iteration: "forward" and "backward", once for each micro-batch.

        Each takes the micro-batches in their order. By default they alternate. A module that is not `locked` goes
        backward with what the next one sent last but one: so of m micro-batches K − k are still under way at the end.
        """
        return ["forward", "backward"] * self.micro_batches

    @abstractmethod
    def forward(self, stage: Stage, features: Features) -> Tensor:
        """Take in the features of an iteration, and return the module's outputs."""

    @abstractmethod
    def backward(self, stage: Stage, delta: Tensor | None, step: Step) -> Tensor | None:
        """Go backward with what the next module sent, if anything; update; return what the previous module gets."""

    def optimizer_step(self, g: Tensor, step: Step) -> None:
        """Update the weights along the gradient `g`, which is overwritten."""
        if self.keeps_direction:
            self.direction = g.clone()
        self.apply_gradient(self.w, g, step.lr)

    def skip_update(self) -> None:
        """Leave the weights and the optimizer's state as they are in this iteration."""
        self.direction = None

    def state(self) -> Message:
        """Return `w` and the optimizer's tensors."""
        return {"w": self.w} | self.apply_gradient.state()

    def pending(self) -> list[Message]:
        """Return what earlier iterations left to be done, as named tensors of any shapes, the oldest first."""
        return []

    def load_pending(self, stage: Stage, pending: Sequence[Message]) -> None:
        """Take over what `pending` returned; called after `load_state`, whose weights it must leave as they are."""

    def extra_operations(self) -> float:
        """Return what an iteration costs besides the passes of the module, for one sample; 0 by default.

        Counted as PyTorch's `FlopCounterMode` does, a multiply-add as two.
        """
        return 0.0

    def retained(self) -> tuple[list[Tensor], list[Tape]]:
        """Return the tensors and tapes that stay in memory for later iterations, the weights aside."""
        return [], []


def check_start(start: str) -> str:
    """Check the option `start` of methods whose modules have no gradient at first.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    return one_of("start", start, ("skip", "zero"))
