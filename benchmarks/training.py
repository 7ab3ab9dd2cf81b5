"""Measures training throughput: dcrun beside a bare PyTorch loop, ResNet-20 on CIFAR-shaped images, batches of 128.

The bare loop gets the same network, memory format, precision, augmentation and batches on the device, and
`torch.optim.SGD`; it counts no errors and logs nothing. dcrun's side is a whole run with its run folder; as in
`summary.json`, samples/s leave evaluation and checkpoints out.
"""

from __future__ import annotations

import time

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import torch
from sidebyside import Row, Side, in_turn, main, ratios, sized
from subject import build_components, run

from data.augment import PadCrop
from runner.train.build import RunComponents
from runner.train.network import build_module

BATCH = sized(128, 8)
STEPS = 12
"""Gradients that a side computes in a round: enough to fill 8 workers, few enough that all sides meet one machine."""
ROUNDS, SECONDS = sized(30, 1), 240.0
CIFAR = [
    "model=resnet20",
    "dataset=synthetic",
    "dataset.shape=[3,32,32]",
    f"dataset.train={STEPS * BATCH}",
    "dataset.test=10",
    "schedule.lr=0.01",
    "run.epochs=1",
]


def subject(*overrides: str) -> RunComponents:
    """A run of STEPS gradients of BATCH samples, augmented as CIFAR's are."""
    given = build_components([*CIFAR, f"run.batch_size={BATCH}", *overrides])
    given.dataset.train.augment = PadCrop(4, flip=True)
    return given


def bare(given: RunComponents) -> Side:
    """A plain training loop over the samples of a run; returns samples/s."""
    split, cfg = given.dataset.train, given.cfg
    model = build_module(cfg, given.dataset)
    # PyTorch's types leave the format out.
    model = model.to(given.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.SGD(model.parameters(), lr=cfg.schedule.lr, weight_decay=cfg.algorithm.weight_decay)

    def side() -> float:
        order = torch.randperm(len(split))
        begin = time.perf_counter()
        for ids in order.split(BATCH):
            inputs, targets = split.batch(ids, seed=0, epoch=0)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        if given.device.type == "cuda":
            torch.cuda.synchronize()
        return len(split) / (time.perf_counter() - begin)

    return side


def through(given: RunComponents) -> Side:
    """The same samples through dcrun; returns samples/s."""
    return lambda: run(given)["samples_per_second"]


def measure() -> list[Row]:
    """SGD and simulated DC-ASGD-a, each relative to the bare loop."""
    sgd, simulated = subject("algorithm=sgd"), subject("algorithm=dc_asgd_a", "cluster.workers=8")
    base, a, b = in_turn([bare(sgd), through(sgd), through(simulated)], rounds=ROUNDS, seconds=SECONDS)
    note = f"bare PyTorch loop: {max(base):.0f} samples/s at best"
    return [
        Row("sgd through dcrun / bare PyTorch loop", 0.95, ratios(a, base), note=note),
        Row("simulated dc_asgd_a, 8 workers / bare PyTorch loop", 0.92, ratios(b, base), note=note),
    ]


if __name__ == "__main__":
    main(measure)
