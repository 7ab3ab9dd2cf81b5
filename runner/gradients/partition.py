"""A network cut into the modules of a pipeline: where each begins, its share of the work, its messages' size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from algorithms.partition import partition
from algorithms.pipeline import StageInfo
from runner.config.errors import InputError, building
from runner.config.seeds import derive
from runner.config.units import FLOAT_BYTES
from runner.gradients.operations import OperationCount
from runner.gradients.oracle import NetworkOracle
from runner.gradients.pipeline_stage import PipelineStage


class Partition:
    """A network cut into modules.

    Args:
        oracle: of the whole network.
        workers: number of modules K.
        split: blocks at which modules 2 to K begin, or None.
        shape: of a sample.
        classes: number of classes.

    Attributes:
        stages: the modules.
        outputs: shape of what each makes of one sample.
        operations: of a forward pass of the network for one sample, a multiply-add counts as two.
        work_shares: each one's share of the network's multiply-adds in a forward pass.

    Raises:
        InputError: the network is not a chain that can be cut so. The caller has looked for `blocks_that_share`.
    """

    def __init__(
        self, oracle: NetworkOracle, workers: int, split: Sequence[str] | None, shape: Sequence[int], classes: int
    ) -> None:
        self.oracle = oracle
        self.classes = classes
        chain: Any = oracle.replica.module
        if not hasattr(chain, "block_names"):
            raise InputError.of("model", type(chain).__name__, "is not a chain of blocks", "networks with blocks")
        # A module that says nothing of blocks is one itself, under an empty name.
        blocks = [(name, chain.get_submodule(name)) for name in chain.block_names]
        with building():
            # By weights, without the network being run: every rank must cut at the same places.
            spans = partition([(name, sum(p.numel() for p in b.parameters())) for name, b in blocks], workers, split)
        pieces = [_pieces(oracle, [name for name, _ in blocks[low:high]]) for low, high in spans]
        # The weights' pieces, then the statistics'.
        for k in (0, 2):
            ends = [(piece[k], piece[k + 1]) for piece in pieces]
            assert all(a[1] == b[0] for a, b in itertools.pairwise(ends)), "a module's piece is contiguous"
        self.pieces = pieces
        self.stages = [
            PipelineStage(oracle, rank, span, piece, rank == workers - 1)
            for rank, (span, piece) in enumerate(zip(spans, pieces, strict=True))
        ]
        self._measure(shape)

    def _measure(self, shape: Sequence[int]) -> None:
        # One sample of zeros will do: shapes and numbers of operations do not depend on values.
        tokens = getattr(self.oracle.replica.module, "takes_tokens", False)
        kind = torch.int64 if tokens else torch.float32
        features = torch.zeros(1, *shape, dtype=kind, device=self.oracle.device)
        self.outputs, work = [], []
        for stage in self.stages:
            with torch.no_grad(), OperationCount() as counted:
                for block in stage.blocks:
                    # In eval mode batch norm leaves its statistics as they are.
                    features = block.eval()(features)
            # Without the batch's own size, which an epoch's last batch changes.
            self.outputs.append(tuple(features.shape[1:]))
            work.append(counted.total)
        self.operations = sum(work)
        self.work_shares = [amount / sum(work) for amount in work]

    def stage_info(self, rank: int) -> StageInfo:
        """Return the facts about a module that its method needs."""
        # A stream of its own for each module, whoever executes it.
        seed = derive(self.oracle.seed, "pipeline", rank)
        return StageInfo(rank, len(self.stages), self.outputs[rank], self.classes, seed)

    def nbytes(self, rank: int, samples: int) -> int:
        """Return the bytes of what a module makes of so many samples."""
        return FLOAT_BYTES * samples * int(torch.Size(self.outputs[rank]).numel())


def blocks_that_share(chain: nn.Module) -> tuple[str, str] | None:
    """Return the names of two blocks of a network that share a weight, None if no two do."""
    owners: dict[int, str] = {}
    for name in getattr(chain, "block_names", ()):
        for p in chain.get_submodule(name).parameters():
            if (other := owners.setdefault(id(p), name)) != name:
                return other, name
    return None


def _pieces(oracle: NetworkOracle, names: Sequence[str]) -> tuple[int, int, int, int]:
    """Return where the blocks' weights begin and end, and their statistics; an empty range where there are none.

    Statistics come in the order of the network's modules, as weights do.
    """
    replica = oracle.replica
    prefixes = tuple(f"{name}." if name else "" for name in names)
    weights = [replica.named_weights(replica.weights), replica.named_statistics(replica.statistics)]
    found: list[int] = []
    before = _order(replica.module, names[0])
    for named in weights:
        low, length = 0, 0
        for name, tensor in named:
            if name.startswith(prefixes):
                length += tensor.numel()
            elif name.startswith(before):
                low += tensor.numel()
        found += [low, low + length]
    return found[0], found[1], found[2], found[3]


def _order(module: Any, first: str) -> tuple[str, ...]:
    names = module.block_names[: module.block_names.index(first)]
    # No name begins with this character: nothing comes before the first block.
    return tuple(f"{name}." for name in names) or ("\0",)
