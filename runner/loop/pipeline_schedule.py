"""What all who execute a pipeline share: its passes, what goes into them, their time, what a checkpoint restores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Batch, Step
from algorithms.pipeline import Features, Pipeline, Stage
from runner.gradients.oracle import NetworkOracle
from runner.gradients.partition import Partition
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


def first_features(oracle: NetworkOracle, batch: Batch, number: int) -> Features:
    """Return what goes into the first module in iteration `number`, whose batch this is."""
    inputs, targets = oracle.split.batch(batch.ids, seed=oracle.seed, epoch=batch.epoch)
    return Features(number, oracle.arranged(inputs), targets)


def later_features(oracle: NetworkOracle, batch: Batch, number: int, inputs: Tensor) -> Features:
    """Return what goes into a module after the first, which alone needs the samples; `inputs` are from before it."""
    targets = oracle.split.targets
    return Features(number, inputs, targets.index_select(0, batch.ids.to(targets.device)))


Before = Callable[[str, int], object]
"""Told which call of a method comes next, and of which module: seeds what the method draws in it."""
After = Callable[[str, int, "Tensor | None"], object]
"""Given what a call of a module returned, to be checked before its neighbour gets it."""


def ignore(*told: object) -> None:
    """Neither seed nor check anything, as where steps are only timed."""


def forward(
    methods: Sequence[Pipeline],
    stages: Sequence[Stage],
    features: Features,
    before: Before = ignore,
    after: After = ignore,
) -> None:
    """Take a batch through all modules."""
    for rank, (method, stage) in enumerate(zip(methods, stages, strict=True)):
        before("forward", rank)
        outputs = method.forward(stage, features)
        after("forward", rank, outputs)
        features = features._replace(inputs=outputs)


def backward(
    methods: Sequence[Pipeline],
    stages: Sequence[Stage],
    sent: Sequence[Tensor | None],
    step: Step,
    before: Before = ignore,
    after: After = ignore,
) -> list[Tensor | None]:
    """Go backward in all modules.

    Args:
        methods: of the modules.
        stages: the modules.
        sent: what each module sent down in the iteration before.
        step: of this update.
        before: see `Before`.
        after: see `After`.

    Returns:
        What each module sends down in this one.
    """
    sending: list[Tensor | None] = [None] * len(methods)
    # From the last module down: a locked one needs what the module above sends in this iteration. A decoupled one takes
    # what was sent in the iteration before, so its order would not matter.
    for rank in reversed(range(len(methods))):
        above = sending if methods[rank].locked else sent
        delta = None if rank == len(methods) - 1 else above[rank + 1]
        before("backward", rank)
        sending[rank] = methods[rank].backward(stages[rank], delta, step)
        after("backward", rank, sending[rank])
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
