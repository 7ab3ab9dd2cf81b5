"""What all who execute a pipeline share: its passes, what goes into them, their time, what a checkpoint restores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from algorithms.base import Batch, Step
from algorithms.pipeline import Features, Pipeline, Stage
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
from runner.gradients.randomness import seed_generators
from runner.run_folder import columns

FORWARD_SHARE = 1 / 3
"""Share of the forward pass in a gradient's seconds: a backward pass multiplies twice where it multiplies once."""


def iteration_bytes(partition: Partition, size: int) -> int:
    """Return the bytes that the modules send each other for a batch of `size` samples."""
    # Features go down the chain, error gradients up, of the same bytes.
    return 2 * sum(partition.nbytes(rank, size) for rank in range(len(partition.stages) - 1))


def extra_share(method: Pipeline, operations: float) -> float:
    """Return the share of a gradient's seconds that a method takes besides the passes of its module.

    Args:
        method: of the module.
        operations: of the whole network's forward pass for one sample.
    """
    return FORWARD_SHARE * method.extra_operations() / operations


def counts_memory(step: int, workers: int) -> bool:
    """Return whether memory is counted in this iteration; once the pipeline is full, all iterations hold the same."""
    # Looking takes time in every pass, so it ends when nothing new can be seen.
    return step < 2 * workers + 1


def memory_columns(peaks: Sequence[int]) -> dict[str, float]:
    """Return the columns of each module's peak of memory, in bytes, and of their sum."""
    each = {f"{columns.ACTIVATION_BYTES}_module{k}": float(peak) for k, peak in enumerate(peaks, start=1)}
    return {columns.ACTIVATION_BYTES: float(sum(peaks))} | each


def piece_sizes(size: int, pieces: int) -> list[int]:
    """Return the samples of each micro-batch; they differ by at most one, and there may be none in the last ones."""
    # As `tensor_split` cuts.
    return [size // pieces + (piece < size % pieces) for piece in range(pieces)]


class Pass(NamedTuple):
    """What a module does next: "forward" or "backward", on which micro-batch of the iteration."""

    rank: int
    call: str
    piece: int


def first_features(oracle: NetworkOracle, batch: Batch, number: int, piece: int = 0, pieces: int = 1) -> Features:
    """Return what goes into the first module in iteration `number`: its batch, or one of `pieces` micro-batches."""
    ids = batch.ids.tensor_split(pieces)[piece]
    # A data set may not know how to make no samples: one is made then, and left out.
    inputs, targets = oracle.split.batch(ids if len(ids) else batch.ids[:1], seed=oracle.seed, epoch=batch.epoch)
    inputs, targets = inputs[: len(ids)], targets[: len(ids)]
    return Features(number, oracle.arranged(inputs), targets, *_place(batch, ids, piece, pieces))


def later_features(
    oracle: NetworkOracle, batch: Batch, number: int, inputs: Tensor, piece: int = 0, pieces: int = 1
) -> Features:
    """Return what goes into a module after the first, which alone needs the samples; `inputs` are from before it."""
    targets, ids = oracle.split.targets, batch.ids.tensor_split(pieces)[piece]
    targets = targets.index_select(0, ids.to(targets.device))
    return Features(number, inputs, targets, *_place(batch, ids, piece, pieces))


def _place(batch: Batch, ids: Tensor, piece: int, pieces: int) -> tuple[int, int, float]:
    return piece, min(pieces, len(batch.ids)), len(ids) / len(batch.ids)


def seed_pass(oracle: NetworkOracle, seed: int, number: int, ready: Pass) -> None:
    """Seed what a method may draw in one of its passes of iteration `number`, on whatever process."""
    piece = (ready.piece,) if ready.piece else ()
    seed_generators(oracle.device, seed, ready.call, number, ready.rank, *piece)


Before = Callable[[Pass], object]
"""Told which pass comes next: seeds what the method draws in it."""
After = Callable[[str, int, "Tensor | None"], object]
"""Given what a call of a module returned, to be checked before its neighbour gets it."""


def ignore(*told: object) -> None:
    """Neither seed nor check anything, as where steps are only timed."""


def order_of_passes(methods: Sequence[Pipeline]) -> list[Pass]:
    """Return the passes of an iteration in an order in which one process can make them.

    Each module keeps to its own order. Between modules the last one that has what its next pass needs comes first, so
    what a module sends up is taken at once.
    """
    left = [deque(method.pass_order()) for method in methods]
    last = len(methods) - 1
    made = {call: [0] * len(methods) for call in ("forward", "backward")}

    def ready(rank: int) -> bool:
        if not left[rank]:
            return False
        call = left[rank][0]
        if call == "forward":
            return rank == 0 or made[call][rank - 1] > made[call][rank]
        # A module that is not locked takes what was sent before that; of the first pass, in the iteration before.
        early = 0 if methods[rank].locked else 1
        return rank == last or made[call][rank + 1] + early > made[call][rank]

    order = list[Pass]()
    while any(left):
        rank = next(rank for rank in range(last, -1, -1) if ready(rank))
        call = left[rank].popleft()
        order.append(Pass(rank, call, made[call][rank]))
        made[call][rank] += 1
    return order


def iterate(
    methods: Sequence[Pipeline],
    stages: Sequence[Stage],
    pieces: Sequence[Features],
    sent: Sequence[Tensor | None],
    step: Step,
    before: Before = ignore,
    after: After = ignore,
) -> list[Tensor | None]:
    """Take a batch forward through all modules, and all modules backward.

    Args:
        methods: of the modules.
        stages: the modules.
        pieces: what goes into the first module, by micro-batch.
        sent: what each module sent down last in the iteration before.
        step: of this update.
        before: see `Before`.
        after: see `After`.

    Returns:
        What each module sends down last in this one.
    """
    above, ranks = [*sent[1:], None], range(len(methods))
    features = [deque(pieces), *(deque[Features]() for _ in ranks[1:])]
    deltas = [deque([] if method.locked else [above[rank]]) for rank, method in enumerate(methods)]
    sending: list[Tensor | None] = [None] * len(methods)
    for ready in order_of_passes(methods):
        rank, call, _ = ready
        method, stage = methods[rank], stages[rank]
        before(ready)
        if call == "forward":
            taken = features[rank].popleft()
            outputs = method.forward(stage, taken)
            after(call, rank, outputs)
            if rank < ranks[-1]:
                features[rank + 1].append(taken._replace(inputs=outputs))
            continue
        delta = None if rank == ranks[-1] else deltas[rank].popleft()
        sending[rank] = method.backward(stage, delta, step)
        after(call, rank, sending[rank])
        if rank:
            deltas[rank - 1].append(sending[rank])
    return sending


def restore_module(method: Pipeline, stage: Any, state: dict[str, Any], rank: int, device: torch.device) -> None:
    """Restore a module's method from the state of all modules that a checkpoint holds.

    Args:
        method: of the module.
        stage: the module.
        state: by name, a list with an entry for each module: `methods` (named tensors), `kept` (of earlier iterations).
        rank: which module, from 0.
        device: where what is kept of earlier iterations goes.
    """
    # The weights first: what is kept of earlier iterations may be recorded anew at them.
    method.load_state(state["methods"][rank])
    kept = state["kept"][rank]
    method.load_pending(stage, [{name: tensor.to(device) for name, tensor in item.items()} for item in kept])
