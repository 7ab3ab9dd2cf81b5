"""The public simulator of SMEGA2 as a side of a benchmark, from a checkout of its own: github.com/rafi-cohen/SMEGA2.

`DCRUN_PEER_SMEGA2` says where the checkout is. Its modules do the work, in the order of its training loop; the network,
the samples and the batches are those of the run that it is compared with. It is given the network as it makes its own,
in PyTorch's default memory format.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from runner.train.build import RunComponents
from runner.train.network import build_module

PLACE = "DCRUN_PEER_SMEGA2"
GAMMA_SHAPE = 100
"""Its default; the scale is the batch size divided by it."""


def checkout() -> Path | None:
    """Return where the peer is; None if the environment names no checkout, or one without its modules."""
    place = os.environ.get(PLACE)
    found = None if place is None else Path(place)
    return found if found is not None and (found / "simulator.py").is_file() else None


def side(place: Path, given: RunComponents, threads: int) -> Callable[[], float]:
    """Return a side that goes through the samples of a run once, with as many simulated workers; samples/s."""
    cfg, split, workers = given.cfg, given.dataset.train, given.workers
    modules = _modules(place)
    model = build_module(cfg, given.dataset).train()
    selection = modules["worker_selection"].GammaRandomWorkerSelection(
        workers, GAMMA_SHAPE, cfg.run.batch_size / GAMMA_SHAPE
    )
    simulator = modules["simulator"].Simulator(workers, selection, model)
    optimizer = modules["smega2"].SMEGA2(model.parameters(), lr=cfg.schedule.lr, momentum_cycle=workers, momentum=0.9)

    def speed() -> float:
        torch.set_num_threads(threads)
        order = torch.randperm(len(split))
        begin = time.perf_counter()
        for ids in order.split(cfg.run.batch_size):
            inputs, targets = split.batch(ids, seed=0, epoch=0)
            simulator.load_next_worker()
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.item()
            loss.backward()
            simulator.load_master()
            optimizer.step()
            simulator.update_master(model.parameters())
            simulator.update_worker(optimizer.estimate())
        return len(split) / (time.perf_counter() - begin)

    return speed


def _modules(place: Path) -> dict[str, Any]:
    # Its optimizer imports a mark for arguments without a default, which PyTorch no longer has.
    optimizers = importlib.import_module("torch.optim.optimizer")
    if not hasattr(optimizers, "required"):
        setattr(optimizers, "required", object())  # noqa: B010 (a type checker knows no such name)
    sys.path.insert(0, str(place))
    try:
        return {name: importlib.import_module(name) for name in ("simulator", "smega2", "worker_selection")}
    finally:
        sys.path.remove(str(place))
