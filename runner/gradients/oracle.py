"""The oracle of a neural network on a data set: gradients at given weights on given samples.

It also counts what training reports (loss, errors, samples), on the device, so that no step waits for a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from runner.config.errors import InputError
from runner.config.seeds import derive
from runner.gradients.cuda_graph import CapturedSteps, Graphs
from runner.gradients.forward import NetworkForward
from runner.gradients.randomness import DrawWatch, piece_name, seeded
from runner.gradients.replica import Replica
from runner.gradients.rows import ObjectiveRows, rows_of
from runner.gradients.sample_norms import SampleNorms
from runner.gradients.side_stream import SideStream

Prepared = tuple[Tensor, Tensor]
"""Inputs [B, ...] and targets [B] of a batch."""


class Sample(Protocol):
    """A batch as methods hand it back; see `algorithms.base.Batch`."""

    @property
    def number(self) -> int:
        """Position in the run."""
        ...

    @property
    def epoch(self) -> int:
        """Pass over the training set."""
        ...

    @property
    def ids(self) -> Tensor:
        """Sample numbers."""
        ...

    @property
    def piece(self) -> int:
        """Which share of the batch."""
        ...

    @property
    def size(self) -> int | None:
        """Number of samples that were handed out."""
        ...


class NetworkOracle(NetworkForward):
    """Answer a method's questions about the training loss of a network.

    Args:
        replica: the flattened network.
        split: training samples, `batch(ids, seed=, epoch=)`.
        seed: the run's seed, for augmentation and dropout.
        precision: see `NetworkForward`, as `compiled`.
        compiled: samples of a batch whose forward pass is compiled.
        micro_batch: largest number of samples at a time. A larger batch is cut into pieces that differ by at most one
            sample, and their gradients are accumulated: without batch norm the gradient of the whole, to rounding, in
            the memory of a piece. Batch norm normalises each piece by itself; the batch's statistics are then the
            pieces' means and unbiased variances, averaged by samples. None for a batch in one piece.
        graphs: capture whole steps with these; None makes each step as it is.
        side_stream: copies weights that come from CPU memory to the GPU while the batch is prepared there; None copies
            them first.
        piece: samples at a time of `gradient_sum`.

    Attributes:
        totals: (3,) float64 on the device: sum of losses, errors and samples since `take_totals`.
        streams: whether the split decodes samples as they are used, and wants to know of batches ahead.
        interrupt: called before each piece of a gradient; it may raise, to leave the computation.
        counts: what was added to `totals`, sum by sum, for who adds it up again elsewhere; None to keep no such list.
    """

    def __init__(
        self,
        replica: Replica,
        split: Any,
        *,
        seed: int,
        precision: str = "fp32",
        compiled: int | None = None,
        micro_batch: int | None = None,
        graphs: Graphs | None = None,
        side_stream: SideStream | None = None,
        piece: int = 256,
    ) -> None:
        super().__init__(replica, precision=precision, compiled=compiled)
        self.split = split
        # Asked of the split, not of a setting: only a split that decodes ahead has this method.
        self.streams = hasattr(split, "expect")
        self.seed = seed
        self.micro_batch = micro_batch
        self.side_stream = side_stream
        self.piece = piece
        self.totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        self.interrupt: Callable[[], None] = lambda: None
        self.counts: list[tuple[Any, Any, Any]] | None = None
        self.steps: CapturedSteps | None = None
        if graphs is not None:
            self.steps = CapturedSteps(self._step, graphs=graphs, preserved=self._changed_by_steps, device=self.device)
            if any(isinstance(m, nn.modules.dropout._DropoutNd) for m in replica.module.modules()):
                self.steps.refuse("the network drops units, at random anew for each batch")
            if self.streams:
                self.steps.refuse("samples are decoded on the CPU as they are used")

    def gradient(self, w: Tensor, batch: Sample) -> Tensor:
        """Return the mean gradient over the batch at the flat weights `w`, as a flat vector that the next call reuses.

        An empty batch has a zero gradient and leaves the batch statistics as they were.
        """
        return self._backward(w, batch, None)

    def reference_gradient(self, w: Tensor, batch: Sample) -> Tensor:
        """Return `gradient` and leave `totals` as they were: for weights that are not the iterate."""
        with self.uncounted():
            return self._backward(w, batch, None)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave `totals` as they are, whatever is computed inside: training reports its own steps alone."""
        totals, counts = self.totals.clone(), self.counts
        self.counts = None
        try:
            yield
        finally:
            # In place: captured steps and executors hold on to this very tensor.
            self.totals.copy_(totals)
            self.counts = counts

    def gradient_sum(self, w: Tensor, batch: Sample) -> Tensor:
        """Return the sum of the samples' gradients at `w`, taken `piece` samples at a time; `totals` stay.

        The vector is reused by the next call.
        """
        replica = self.replica
        if w.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(w)
        pieces = max(1, math.ceil(batch.ids.numel() / self.piece))
        if self.streams:
            self.split.expect(batch.ids.tensor_split(pieces)[0], seed=self.seed, epoch=batch.epoch)
        with self.uncounted():
            self._accumulate(batch, None, None, pieces)
        # What was accumulated is the mean over the batch, in the pieces' shares.
        return replica.gradient.mul_(batch.ids.numel())

    def gradient_and_norms(self, w: Tensor, batch: Sample, samples: int | None = None) -> tuple[Tensor, Tensor]:
        """Return `gradient`, and for each layer the mean norm of a single sample's gradient, (layers,).

        The mean is over the batch's first `samples`, by default all; zero for an empty batch. With batch norm a
        sample's gradient is its contribution to the batch's, see `runner.gradients.sample_norms`.

        Raises:
            ValueError: the network has a layer whose norms are not known.
        """
        size = batch.ids.numel()
        counted = size if samples is None else min(samples, size)
        squares = torch.zeros(len(self.replica.layers), counted, device=self.device)
        gradient = self._backward(w, batch, squares)
        # Contributions sum to the gradient of a mean over `size` samples.
        return gradient, squares.sqrt_().sum(1).mul_(size / max(1, counted))

    def rows(self, ids: Tensor, counted: bool = True) -> ObjectiveRows:
        """Return single samples of an objective with one weight a feature, see `algorithms.base.Rows`."""
        x, targets = rows_of(self.split, ids)
        return ObjectiveRows(self.replica.module, x, targets, self.count_sums if counted else None)

    def generator(self, batch: Sample) -> torch.Generator:
        """Return a generator for a method's random choices on a batch, on the CPU."""
        # By the batch's number, like dropout: the choices do not depend on who works on the batch, or when.
        return torch.Generator().manual_seed(derive(self.seed, "choices", *_stream(batch)))

    @cached_property
    def sample_norms(self) -> SampleNorms:
        """What records norms of single samples' gradients.

        Raises:
            ValueError: the network has a layer whose norms are not known.
        """
        return SampleNorms(self.replica.module, self.replica.layers)

    def _backward(self, w: Tensor, batch: Sample, squares: Tensor | None) -> Tensor:
        """Fill the flat gradient, and `squares` with squared norms of contributions."""
        replica = self.replica
        size = batch.ids.numel()
        arriving = w if self.side_stream is not None and size and self.side_stream.can_copy(w) else None
        # Weights that live in the replica, as a single worker's do, need no copy.
        if arriving is None and w.data_ptr() != replica.weights.data_ptr():
            replica.weights.copy_(w, non_blocking=True)
        # The weights are in place by now, as after any other batch; there is only nothing to compute.
        if size == 0:
            return replica.gradient.zero_()
        try:
            # A whole step sets the gradient; pieces are added up in a gradient that starts from zero.
            if self.steps is not None and self._whole(size, squares):
                self._whole_step(batch, arriving)
            else:
                self._accumulate(batch, squares, arriving)
        except RuntimeError as error:
            if torch.are_deterministic_algorithms_enabled() and "deterministic" in str(error):
                what = str(error).split(" does not have")[0] + " is not repeatable on this device"
                raise InputError.of("run.deterministic", True, what, "false") from error
            raise
        return replica.gradient

    def _whole(self, size: int, squares: Tensor | None) -> bool:
        """Return whether a batch of so many samples is one step without records; if not, steps are captured no more."""
        assert self.steps is not None
        if squares is not None:
            self.steps.refuse("norms of single samples' gradients are recorded")
            return False
        if self.micro_batch is not None and size > self.micro_batch:
            self.steps.refuse("batches are cut into pieces (run.micro_batch)")
            return False
        # What was captured before a refusal is correct, and stays in use.
        return self.steps.refused is None or self.steps.has(size)

    def _whole_step(self, batch: Sample, arriving: Tensor | None) -> None:
        """Make one step on all of a batch: from its second one on by replaying a graph, if nothing is drawn in it."""
        assert self.steps is not None
        self.interrupt()
        with self._listed():
            if self.steps.has(batch.ids.numel()):
                # Captured, so the steps before it drew nothing, and there is nothing to seed.
                self.steps(batch.ids, batch.epoch, arriving)
                return
            with self._seeded(batch):
                # Asked of each step until one is captured: whether a network draws shows only when it runs.
                watch = DrawWatch(self.device)
                self.steps(batch.ids, batch.epoch, arriving)
                if watch.drawn():
                    self.steps.refuse("the network draws random numbers, anew for each batch")

    @contextmanager
    def _listed(self) -> Iterator[None]:
        """Put what the one step inside counts on the list `counts`, if there is one, once."""
        if self.counts is None:
            yield
            return
        # A replayed step calls no Python that would add to the list, and one that warms up or is recorded calls it in
        # vain. All add to `totals`, on the device: what a step adds to zeros is its own sums, to the bit.
        before, counts = self.totals.clone(), self.counts
        self.totals.zero_()
        self.counts = None
        try:
            yield
        finally:
            self.counts = counts
        losses, errors, samples = self.totals.clone().unbind()
        self.counts.append((losses, errors, samples))
        self.totals.add_(before)

    def _seeded(self, batch: Sample) -> AbstractContextManager[None]:
        """Return a context in which the network draws what belongs to a batch, whoever computes on it, or when."""
        # Dropout in functions, of a user's module, shows in no layer: so every step is seeded, not only those of
        # networks that have such layers.
        return seeded(self.device, self.seed, "dropout", *_stream(batch))

    def _meanwhile(self, w: Tensor | None, prepare: Callable[[], Prepared]) -> Prepared:
        """Return what `prepare` returns, which is done while the weights `w`, if any, are copied to the replica."""
        if w is None:
            return prepare()
        assert self.side_stream is not None
        arrived = self.side_stream.start(lambda: self._load(w))
        try:
            return prepare()
        finally:
            # Also where preparing fails: a copy that nobody waits for would write into the next step's weights.
            arrived()

    def _load(self, w: Tensor) -> None:
        self.replica.weights.copy_(w, non_blocking=True)

    def _step(self, ids: Tensor, epoch: int | Tensor, arriving: Tensor | None = None) -> None:
        """Fill the flat gradient, the batch statistics and the totals, by operators on the device alone."""
        self.replica.module.train()
        inputs, targets = self._meanwhile(arriving, partial(self.split.batch, ids, seed=self.seed, epoch=epoch))
        loss, errors = self.forward_for(len(inputs))(inputs, targets)
        self.replica.backpropagate(loss)
        self.count(loss.detach(), errors, len(inputs))

    def _changed_by_steps(self) -> list[Tensor]:
        """Return what steps change besides the gradient."""
        return [self.totals, self.replica.statistics, *self.replica.module.buffers()]

    def _accumulate(
        self, batch: Sample, squares: Tensor | None, arriving: Tensor | None, pieces: int | None = None
    ) -> None:
        """Fill the flat gradient, piece by piece, and `squares` with squared norms of contributions."""
        with self._seeded(batch):
            self._add_pieces(batch, squares, arriving, pieces)

    def _add_pieces(self, batch: Sample, squares: Tensor | None, arriving: Tensor | None, pieces: int | None) -> None:
        replica = self.replica
        # Pieces are accumulated, by `backward`, into what is there.
        replica.gradient.zero_()
        size = batch.ids.numel()
        replica.module.train()
        parts = self._pieces(batch.ids) if pieces is None else batch.ids.tensor_split(pieces)
        statistics = torch.zeros_like(replica.statistics) if len(parts) > 1 else None
        low = 0
        for number, ids in enumerate(parts, start=1):
            self.interrupt()
            if pieces is not None and self.streams and number < len(parts):
                self.split.expect(parts[number], seed=self.seed, epoch=batch.epoch)
            prepare = partial(self.split.batch, ids, seed=self.seed, epoch=batch.epoch)
            inputs, targets = self._meanwhile(arriving if low == 0 else None, prepare)
            recorded = None if squares is None or low >= squares.shape[1] else squares[:, low : low + len(ids)]
            loss, errors = self.backward(inputs, targets, len(ids) / size, recorded)
            self.count(loss, errors, len(ids))
            if statistics is not None:
                # Each piece has overwritten `replica.statistics`, so their average is gathered beside it.
                statistics.add_(replica.statistics, alpha=len(ids) / size)
            low += len(ids)
        if statistics is not None:
            replica.statistics.copy_(statistics)

    def count(self, loss: Tensor, errors: Tensor, samples: int) -> None:
        """Add a batch's mean loss and number of errors to the totals."""
        with torch.no_grad():
            sums = (loss * samples, errors, samples)
            # In place and on the device: a captured step adds to the same three numbers, and the host does not wait for
            # them. In the views, since `totals[0] += …` would copy the number back once more.
            for total, more in zip(self.totals.unbind(), sums, strict=True):
                total += more
            if self.counts is not None:
                self.counts.append(sums)

    def count_sums(self, losses: Any, errors: Any, samples: int) -> None:
        """Add sums of losses, errors and samples, tensors or numbers, to the totals."""
        if not self.totals.is_cpu:
            for total, more in zip(self.totals.unbind(), (losses, errors, samples), strict=True):
                total += more
            return
        # In NumPy, which is several times as fast on single numbers.
        sums = self.totals.numpy()
        sums[0] += float(losses)
        sums[1] += int(errors)
        sums[2] += samples
        if self.counts is not None:
            self.counts.append((losses, errors, samples))

    def _pieces(self, ids: Tensor) -> tuple[Tensor, ...]:
        return ids.tensor_split(1 if self.micro_batch is None else math.ceil(ids.numel() / self.micro_batch))

    def expect(self, batch: Sample) -> None:
        """Say that a gradient on `batch` will be asked for soon; of use where `streams`."""
        if self.streams and batch.ids.numel():
            for ids in self._pieces(batch.ids):
                self.split.expect(ids, seed=self.seed, epoch=batch.epoch)

    def backward(
        self, inputs: Tensor, targets: Tensor, weight: float, squares: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add `weight` times the gradient of the mean loss to the flat gradient.

        Args:
            inputs: [B, ...].
            targets: [B].
            weight: share of these samples in the batch that they belong to.
            squares: zeros (layers, samples); gets squared norms of the first samples' contributions to what is added.

        Returns:
            mean loss and number of errors, 0-d tensors on the device.
        """
        with nullcontext() if squares is None else self.sample_norms.recording(squares):
            # Not compiled while norms are recorded: a compiled pass may skip the hooks that record.
            forward = self.forward_for(len(inputs)) if squares is None else self.loss
            loss, errors = forward(inputs, targets)
            # A factor of 1 is left out: its backward pass would be one more kernel, for the same bits.
            (loss if weight == 1 else loss * weight).backward()
        return loss.detach(), errors

    def take_totals(self) -> Tensor:
        """Return sum of losses, errors and samples since the last call, (3,) float64 on the device, and reset them."""
        totals = self.totals.clone()
        self.totals.zero_()
        return totals


def _stream(batch: Sample) -> tuple[int, ...]:
    """Return what the streams of random numbers of a batch, or a piece of one, are called."""
    return (batch.number, *piece_name(batch.ids, batch.piece, batch.size))
