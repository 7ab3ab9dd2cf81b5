"""Measures what CLARS adds to a step: norms of single samples' gradients on |J| = 512 of B = 8192; LARS needs none.

ResNet-8 on random 16x16 images (larger ones take proportionally longer on both sides), the batch accumulated in pieces
of 512, so CLARS takes norms in one of sixteen pieces. A step is the gradient of the whole batch and the update.
"""

from __future__ import annotations

import time

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import torch
from sidebyside import Row, Side, in_turn, main, ratios, sized

from algorithms.base import Batch, Step
from algorithms.clars import CLARS
from algorithms.lars import LARS
from data.base import Split
from models.resnet import ResNet
from runner.gradients.oracle import NetworkOracle
from runner.gradients.replica import Replica

BATCH, SAMPLES, PIECE = sized((8192, 512, 512), (64, 16, 16))
SHAPE = (3, 16, 16)
ROUNDS, SECONDS = sized(10, 1), 60.0


def stepping(method: LARS, split: Split) -> Side:
    """Steps per second of one worker."""
    torch.manual_seed(0)
    replica = Replica(ResNet(shape=SHAPE, classes=10, depth=8), channels_last=True)
    oracle = NetworkOracle(replica, split, seed=0, micro_batch=PIECE)
    method.prepare(replica.layers)
    method.start(replica.weights, 0, 1)
    step = Step(lr=6.4)
    batch = Batch(0, 0, torch.arange(BATCH))

    def side() -> float:
        begin = time.perf_counter()
        method.apply(method.local(oracle, batch, step), step)
        return 1 / (time.perf_counter() - begin)

    return side


def measure() -> list[Row]:
    """A step of CLARS in steps of LARS."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (BATCH, *SHAPE), generator=generator, dtype=torch.uint8)
    targets = torch.randint(0, 10, (BATCH,), generator=generator)
    split = Split(inputs, targets, mean=(0.5,) * 3, std=(0.25,) * 3)
    lars, clars = in_turn(
        [stepping(LARS(), split), stepping(CLARS(samples=SAMPLES), split)], rounds=ROUNDS, seconds=SECONDS
    )
    note = f"LARS {1 / max(lars):.1f} s a step at best"
    what = f"clars step, |J|={SAMPLES} of B={BATCH} / lars step"
    return [Row(what, 1.25, ratios(lars, clars), at_least=False, note=note)]


if __name__ == "__main__":
    main(measure)
