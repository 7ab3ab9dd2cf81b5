"""A module of a network that is cut: what `algorithms.pipeline.Stage` promises, its size and its memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from algorithms.pipeline import Features, Pipeline
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seeded
from runner.gradients.replica import running_average


class StageTape:
    """A module's forward pass; see `algorithms.pipeline.Tape`.

    Attributes:
        outputs: what the module made of its inputs, without a graph.
        storages: bytes of what the graph holds, by address.
    """

    def __init__(
        self,
        stage: PipelineStage,
        features: Features,
        inputs: Tensor,
        outputs: Tensor,
        loss: Tensor | None,
        parameters: list[Tensor],
    ) -> None:
        # Sent on without its graph: the next module's backward pass must not run into this one's.
        self.outputs = outputs.detach()
        self.storages: dict[int, int] = {}
        self._stage = stage
        self._features = features
        self._inputs = inputs
        self._end = outputs if loss is None else loss
        self._parameters = parameters

    def backward(self, delta: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See `algorithms.pipeline.Tape.backward`."""
        asked = self._parameters + ([self._inputs] if self._inputs.requires_grad else [])
        # A backward pass may draw as well, in a function of the user's.
        with self._stage.seeded(self._features, "backward"):
            # Returned, not accumulated: the parameters are views made for this pass alone.
            found = torch.autograd.grad(self._end, asked, delta, allow_unused=True)
        below = found[-1] if self._inputs.requires_grad else None
        return self._stage.flatten(found[: len(self._parameters)]), below


class PipelineStage:
    """Blocks `low` to `high` of a chain, with their contiguous pieces of the flat weights and statistics.

    Args:
        oracle: of the whole network.
        rank: which module, from 0.
        span: its first block and one past its last.
        pieces: first element of its weights and one past the last, then those of its statistics.
        last: whether it has the loss.

    Attributes:
        weights: its piece of the replica's flat weights.
        running: its running batch-norm statistics.
        method: whose tensors count in `peak`, None to count nothing.
        peak: largest number of bytes of features, stashed weights and saved tensors in memory at a time.
    """

    def __init__(
        self, oracle: NetworkOracle, rank: int, span: tuple[int, int], pieces: tuple[int, int, int, int], last: bool
    ) -> None:
        self.oracle = oracle
        self.rank = rank
        self.last = last
        self.method: Pipeline | None = None
        self.peak = 0
        low, high, first, end = pieces
        replica = oracle.replica
        self.weights = replica.weights[low:high]
        # Batch norm writes the last batch's statistics there; `running` is this module's average of them.
        self._batch = replica.statistics[first:end]
        self.running = replica.initial_statistics()[first:end]
        # Of the micro-batches of one batch that were played so far.
        self._mean = torch.zeros_like(self.running)
        names: Any = replica.module.block_names
        self.blocks: list[nn.Module] = [replica.module.get_submodule(name) for name in names[slice(*span)]]
        self._gradient = torch.zeros_like(self.weights)

    def _views(self, flat: Tensor) -> list[dict[str, Tensor]]:
        """Return the parameters of each block by name, as they stand in a flat vector of the module."""
        low, found = 0, []
        for block in self.blocks:
            views = {}
            for name, p in block.named_parameters():
                views[name] = self.oracle.replica._view(flat, low, p)
                low += p.numel()
            found.append(views)
        return found

    def flatten(self, gradients: Iterable[Tensor | None]) -> Tensor:
        """Return the gradients of the parameters as one vector, which the next call reuses."""
        views = [view for block in self._views(self._gradient) for view in block.values()]
        for view, value in zip(views, gradients, strict=True):
            # A parameter that the loss does not reach must not keep the gradient of the step before.
            if value is None:
                view.zero_()
            else:
                view.copy_(value)
        return self._gradient

    def _run(self, features: Features, inputs: Tensor, parameters: Sequence[dict[str, Tensor]], track: bool) -> Tensor:
        outputs = inputs
        for block, own in zip(self.blocks, parameters, strict=True):
            block.train()
            # With the weights that are given: a method may compute at older ones than the replica's.
            outputs = functional_call(block, own, (outputs,)) if own else block(outputs)
        if track:
            # Only where asked: a module that plays a batch twice would average it in twice.
            self._track(features)
        return outputs

    def _track(self, features: Features) -> None:
        """Take the statistics of a batch into the running ones; those of micro-batches as one, when all are there."""
        batch = self._batch
        if features.pieces > 1:
            if not features.piece:
                self._mean.zero_()
            batch = self._mean.add_(batch, alpha=features.share)
        if features.piece == features.pieces - 1:
            running_average(self.running, batch)

    def seeded(self, features: Features, *stream: str) -> AbstractContextManager[None]:
        """Return a context in which the module draws what belongs to an iteration, on whatever process.

        So a replay drops the units that the play dropped. The first module draws what the whole network would, and
        micro-batches after the first one something else.
        """
        number, own = features.number, (self.rank,) if self.rank else ()
        own += ("micro_batch", features.piece) if features.piece else ()
        return seeded(self.oracle.device, self.oracle.seed, "dropout", number, *own, *stream)

    def play(self, w: Tensor, features: Features, *, track: bool) -> Tensor:
        """See `algorithms.pipeline.Stage.play`."""
        with torch.no_grad(), self.seeded(features):
            outputs = self._run(features, features.inputs, self._views(w), track)
        # A pass without a graph holds no more than the method does.
        self.note({})
        return outputs

    def record(self, w: Tensor, features: Features, *, track: bool) -> StageTape:
        """See `algorithms.pipeline.Stage.record`; the last module counts loss and errors."""
        # `.data` leaves the version counter behind: whoever writes to `w` before the backward pass means it.
        parameters = [{name: view.data.requires_grad_() for name, view in block.items()} for block in self._views(w)]
        # A leaf of its own, at which the backward pass ends, and whose gradient is what goes down.
        inputs = features.inputs.detach()
        # The first module's inputs are samples, whose gradient nobody asks for.
        if self.rank:
            inputs.requires_grad_()
        storages: dict[int, int] = {}
        own = w.untyped_storage().data_ptr()

        def pack(saved: Tensor) -> Tensor:
            storage = saved.untyped_storage()
            # Weights are counted by the method where it stashes copies of them.
            if storage.data_ptr() != own:
                storages[storage.data_ptr()] = storage.nbytes()
            # Detached, or the graph would hold itself alive through its own outputs.
            return saved.detach()

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved)
        with self.seeded(features), hooks:
            outputs = self._run(features, inputs, parameters, track)
            # Counted inside the hooks too: what the loss saves is in memory as well.
            loss = self._loss(outputs, features) if self.last else None
        flat = [p for block in parameters for p in block.values()]
        tape = StageTape(self, features, inputs, outputs, loss, flat)
        tape.storages = storages
        self.note(storages)
        return tape

    def _loss(self, outputs: Tensor, features: Features) -> Tensor:
        module: Any = self.oracle.replica.module
        outputs = outputs.float()
        loss = module.loss(outputs, features.targets)
        self.oracle.count(loss.detach(), module.errors(outputs, features.targets), len(features.targets))
        return loss

    def note(self, storages: Mapping[int, int]) -> None:
        """See `algorithms.pipeline.Stage.note`: look whether more is in memory than ever."""
        if self.method is None:
            return
        tensors, tapes = self.method.retained()
        # By address: what several graphs hold, or a graph and the method, counts once.
        found = dict(storages)
        for tensor in tensors:
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        for other in tapes:
            assert isinstance(other, StageTape)
            found |= other.storages
        self.peak = max(self.peak, sum(found.values()))
