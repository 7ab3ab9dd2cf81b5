"""What a method may ask about the objective, and what it knows of the problem."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Batch(NamedTuple):
    """One worker's samples for one gradient.

    What the network draws at random for it, as dropout does, is a function of the run's seed, `number`, `piece` and,
    where a method took samples away (`batch._replace(ids=...)`), of those that are left: steps on pieces of one batch
    drop different units, two gradients on the same samples the same ones.

    Attributes:
        number: position of the batch in the run, counted from 0.
        epoch: pass over the training set to which it belongs, counted from 0 (seeds augmentation).
        ids: int64 vector of sample numbers; may be empty in a collective's last, short step. Where workers have fixed
            shards of the training set, they are drawn from `pool` uniformly: with replacement, unless the method says
            otherwise (`Stateful.replacement`).
        pool: int64 vector of the samples that the worker may use, in a fixed order; None if that is all of them.
        piece: which worker's share of the batch this is, counted from 0; 0 where one worker has all of it.
        size: number of samples that were handed out as `ids`; None if it is not known.
        step: which of the local steps between a pull and a push it is for, counted from 0; always 0 where each batch
            makes a message.
    """

    number: int
    epoch: int
    ids: Tensor
    pool: Tensor | None = None
    piece: int = 0
    size: int | None = None
    step: int = 0


class Problem(NamedTuple):
    """What a method whose workers have fixed shards of the training set knows of it before it starts.

    Attributes:
        samples: n.
        features: d, also the number of weights.
        workers: M.
        batch: samples a worker uses between two messages.
        scalar: whether ∇φ_i(w) = φ_i'(x_iᵀw) x_i.
    """

    samples: int
    features: int
    workers: int
    batch: int
    scalar: bool

    def shard(self, number: int) -> range:
        """Return the sample numbers of shard `number` of M, which differ in size by at most one."""
        return shard_range(self.samples, self.workers, number)

    @property
    def largest(self) -> int:
        """Number of samples of the largest shard."""
        return -(-self.samples // self.workers)


def shard_range(samples: int, parts: int, number: int) -> range:
    """Return piece `number` of 0 … `samples` − 1 in `parts` pieces, the first ones longer by one where need be."""
    size, longer = divmod(samples, parts)
    low = number * size + min(number, longer)
    return range(low, low + size + (number < longer))


class Rows(Protocol):
    """Samples of an objective with one weight a feature, whose gradients are known one by one.

    Attributes:
        x: the samples (B, d): a tensor, or compressed rows, which know its operators that dual methods use
            (`data.sparse.CompressedRows`).
    """

    x: Any

    @property
    def linear_slopes(self) -> bool:
        """Whether φ_i'' = 1, as for a quadratic loss: dual steps one after the other are linear equations then."""
        ...

    def slopes(self, w: Tensor) -> Tensor:
        """Return φ_i'(x_iᵀw) (B,); of use where ∇φ_i(w) = φ_i'(x_iᵀw) x_i."""
        ...

    def gradients(self, w: Tensor) -> Tensor:
        """Return ∇φ_i(w) (B, d)."""
        ...

    def curvatures(self) -> Tensor:
        """Return how smooth each φ_i is, L_i (B,)."""
        ...

    def vectors(self) -> list[tuple[Any, Any]]:
        """Return each sample as NumPy arrays: what indexes its features, all or those not zero, and their values.

        The values are float64.
        """
        ...

    def dual_step(self, number: int, z: float, alpha: float, curvature: float) -> float:
        """Return the a that maximises −φ_i*(−a) − (a − α_i) z − (q/2) (a − α_i)²; where the method needs "dual".

        Args:
            number: which of the rows i is.
            z: x_iᵀu.
            alpha: α_i, in the domain of φ_i*(−·).
            curvature: q, at least 0.
        """
        ...

    def count(self, w: Tensor) -> None:
        """Enter loss and errors at `w` in what training reports, as `slopes` and `gradients` do."""
        ...


class Oracle(Protocol):
    """What a method may ask about the objective; it may ask for `rows` only if its `needs` says so."""

    def gradient(self, w: Tensor, batch: Batch) -> Tensor:
        """Return the mean gradient over `batch` at the flat weights `w`, a flat vector that the next call reuses."""
        ...

    def reference_gradient(self, w: Tensor, batch: Batch) -> Tensor:
        """Return `gradient` at weights other than the iterate: its loss and errors do not enter training's report."""
        ...

    def gradient_sum(self, w: Tensor, batch: Batch) -> Tensor:
        """Return the sum of many samples' gradients, as `reference_gradient` does; computed piece by piece."""
        ...

    def gradient_and_norms(self, w: Tensor, batch: Batch, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Return `gradient`, and for each layer the mean norm of a single sample's gradient, (layers,).

        The mean is over the batch's first `samples`, by default all; zero for an empty batch.
        """
        ...

    def rows(self, ids: Tensor, counted: bool = True) -> Rows:
        """Return single samples; with `counted`, their loss and errors enter what training reports."""
        ...

    def generator(self, batch: Batch) -> torch.Generator:
        """Return a generator for random choices on a batch, on the CPU, a function of the run's seed and the batch."""
        ...
