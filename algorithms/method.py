"""What all methods share, however their workers communicate: messages, what a step is told, and named state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from algorithms.oracle import Problem

Message = dict[str, Tensor]
"""Named tensors, flat and of fixed sizes and types; an executor packs them into one buffer and sends them as one."""


class Field(NamedTuple):
    """What one tensor of a message is: a flat vector.

    Attributes:
        size: number of elements.
        dtype: their type; whatever it is, they arrive to the bit as they were sent.
    """

    size: int
    dtype: torch.dtype = torch.float32

    @property
    def nbytes(self) -> int:
        """Bytes that it takes on the way."""
        return self.size * self.dtype.itemsize


Fields = Mapping[str, "int | Field"]
"""The tensors of a message by name, in the order in which they are packed. A number alone is so many elements of the
type of the weights, float32."""


def field_of(declared: int | Field, weights: torch.dtype = torch.float32) -> Field:
    """Return a declared field, a number alone as so many elements of the type of the weights."""
    return declared if isinstance(declared, Field) else Field(declared, weights)


def message_bytes(fields: Fields) -> int:
    """Return the bytes of a message's tensors."""
    return sum(field_of(declared).nbytes for declared in fields.values())


class Step(NamedTuple):
    """What an executor tells a method about the update at hand.

    Attributes:
        lr: learning rate η of this update, warm-up included.
        decay: η without warm-up, relative to the value it falls from (1, then 0.1, 0.01 … under the papers'
            multi-step; 1 while a one-cycle rises); always above 0.
        staleness: number τ of updates of the server's weights between the worker's pull and this push (parameter server
            only); pushes that it ignored made none.
        relative_size: this worker's samples relative to an equal cut of the step's samples (collective only).
    """

    lr: float
    decay: float = 1.0
    staleness: int = 0
    relative_size: float = 1.0


class Layer(NamedTuple):
    """A module that owns weights, and its piece `w[low:high]` of the flat vector.

    Attributes:
        name: the module's path in the network, as in its state dict.
        low: first element of the piece.
        high: one past the last.
    """

    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Cost:
    """What one step of a worker costs, for the virtual clock and for counting effective passes.

    Attributes:
        gradients: gradient evaluations per sample of the batch.
    """

    gradients: float = 1.0


class Stateful(ABC):
    """A method whose whole state is a set of named tensors, and what every executor asks of it.

    Attributes:
        has_server: whether a server handles messages one by one, in an order that can be recorded and replayed.
        steps_together: whether an update combines a batch of every worker; else each worker's batch makes one.
        shares_memory: whether all workers write to one vector in the memory of one machine.
        cuts_network: whether workers are modules of one network, and all work on the same batch.
        replicated: whether all workers hold the same weights and state at all times, or there is one vector of weights.
        default_workers: number of workers if the user gives none.
        max_workers: largest number of workers that makes sense, None for any.
        cost: what one step, push or update costs a worker.
        barrier_every: updates from one barrier to the next; None for no barriers.
        barrier_from: updates before the first one, 0 to begin with it; None for as many as `barrier_every`.
        barrier_cost: what a barrier costs in all, per training sample.
        workers: number of workers, valid after `start`.
        per_sample: whether the method asks the oracle for norms of single samples' gradients; networks with layers
            that cannot tell them are then refused before the run.
        separable: whether the method needs f to be a mean of functions f_i of single samples; networks with batch norm
            are then refused before the run.
        needs: what it asks of the objective: "gradients", which every model has; "rows", gradients of single samples of
            a model that has one weight for each feature; "dual", the same with a quadratic loss. With the last two each
            worker has a fixed shard of the training set, whatever `own_shard` says.
        own_shard: whether a worker's batches come from a fixed shard of the training set, its own. Workers of a server
            and of collectives may have some; those that share memory or one network have none.
        replacement: whether the samples of a batch are drawn independently of each other, so that one may come twice.
            If not, those of an own shard are distinct within a batch, and others come in passes over the training set.
            None: yes with fixed shards, no without.
        weight_decay: λ, coefficient of the l2 term (λ/2)‖w‖².
        usual_rates: learning rates of the size that suits it on a network, in the order in which the suite of all
            methods tries whether it learns with one of them.
    """

    has_server: ClassVar[bool] = False
    steps_together: ClassVar[bool] = False
    shares_memory: ClassVar[bool] = False
    cuts_network: ClassVar[bool] = False
    replicated: ClassVar[bool] = True
    default_workers: ClassVar[int] = 4
    max_workers: ClassVar[int | None] = None
    cost: ClassVar[Cost] = Cost()
    barrier_every: int | None = None
    barrier_from: int | None = None
    barrier_cost: ClassVar[Cost] = Cost(0.0)
    per_sample: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    needs: ClassVar[Literal["gradients", "rows", "dual"]] = "gradients"
    own_shard: bool = False
    replacement: bool | None = None
    weight_decay: float = 0.0
    usual_rates: ClassVar[tuple[float, ...]] = (0.1,)

    workers: int

    def check_workers(self, workers: int) -> None:  # noqa: B027 (most methods run with any number of workers)
        """Check that the method can have so many workers; called before everything else.

        Raises:
            ValueError: naming the key, the value and what is allowed.
        """

    def bind_problem(self, problem: Problem) -> None:  # noqa: B027 (most methods need not know)
        """Learn what the problem is; called once, before all but `prepare`, and only if `needs` is not "gradients".

        Raises:
            ValueError: the method cannot solve such a problem.
        """

    def evaluations(self, updates: int) -> float:
        """Return the gradient evaluations per sample of update number `updates`, counted from 0; callable always."""
        return self.cost.gradients

    def largest_rate(self) -> float | None:
        """Return the learning rate from which on the method cannot converge, or None if none is known."""
        return None

    def duals(self, states: Sequence[Message]) -> Tensor | None:
        """Return the dual variables (n,) of all samples, or None (the default) if the method has none.

        Args:
            states: what `state` returned: of the server alone, or of every worker of a collective method.
        """
        return None

    def prepare(self, layers: Sequence[Layer]) -> None:  # noqa: B027 (most methods look at no layers)
        """Learn which piece of the flat vector belongs to which layer; called once, before everything else.

        Raises:
            ValueError: an option names a layer that does not exist.
        """

    def plan(self, samples: int, batch: int) -> None:  # noqa: B027
        """Learn the number n of training samples and the samples of a batch; called once, after `prepare`."""

    @abstractmethod
    def state(self) -> Message:
        """Return every tensor that the next steps depend on, by name: the tensors themselves, not copies."""

    def load_state(self, state: Message) -> None:
        """Copy a saved `state()` back in.

        Raises:
            ValueError: a tensor is missing, unknown or of another shape.
        """
        own = self.state()
        if own.keys() != state.keys():
            raise ValueError(f"algorithm state has {sorted(state)}; expected {sorted(own)}")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise ValueError(
                    f"algorithm state {name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
                )
            tensor.copy_(state[name])


def zeros(*shape: int, like: Tensor) -> Tensor:
    """Return zeros of `shape` with the type and device of `like`."""
    return torch.zeros(shape, dtype=like.dtype, device=like.device)
