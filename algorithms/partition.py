"""How a chain of blocks is cut into the modules of a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch


def partition(blocks: Sequence[tuple[str, int]], workers: int, split: Sequence[str] | None) -> list[tuple[int, int]]:
    """Cut a chain into modules.

    Without `split`, units are counted as in the literature on decoupled training: every block but the last, the
    classifier, which joins the last module; ⌈units / K⌉ go to each module and the rest to the last (58 units of
    ResNet-110 make 29/29 and 15/15/15/13, 85 of ResNet-164 make 22/22/22/19). Deviation, for short chains: if that
    leaves a module without weights, the blocks that own weights are spread as evenly as possible instead, and each
    takes along the blocks without weights that follow it.

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
            f"cluster.workers={workers}: the network has {_blocks(len(heavy))} with weights, and each module needs "
            f"one; allowed: {'1' if len(heavy) < 2 else f'1 to {len(heavy)}'}"
        )
    if split is not None:
        return _at_names(blocks, names, workers, split)
    size = -(-(len(blocks) - 1) // workers) or 1
    starts = [size * k for k in range(workers)]
    if _fits(blocks, starts):
        return _spans(starts, len(blocks))
    pieces = torch.tensor(heavy).tensor_split(workers)
    return _spans([0, *(int(piece[0]) for piece in pieces[1:])], len(blocks))


def _at_names(
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
    """Return whether every module has weights; `starts` may reach beyond the chain's end."""
    spans = _spans(starts, len(blocks))
    return all(sum(weights for _, weights in blocks[low:high]) for low, high in spans)


def _blocks(count: int) -> str:
    return f"{count} block" if count == 1 else f"{count} blocks"
