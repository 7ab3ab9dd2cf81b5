"""Short runs inside the test's own process: composed as a command line is, driven by the real executors."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from algorithms.base import Layer
from runner.cli.compose import composer
from runner.config import schema, validation
from runner.config.schema import without_hydra
from runner.config.seeds import derive
from runner.gradients.evaluate import Score
from runner.loop.stop import Stop
from runner.run_folder.fingerprint import weights_sha256
from runner.sweeps import subprocess_launcher
from runner.train import build
from runner.train.dispatch import dispatch
from runner.train.executors import simulated
from tests.checked import SEARCHED

SMALL = ("logger=none", "run.threads=1", "run.device=cpu", "run.compute_processes=1")
"""What every run in a test wants: no wandb, nothing that depends on the machine's cores or its speed."""


def compose(*overrides: str) -> DictConfig:
    """Compose and check a command line of group options (`algorithm=sgd`) and keys (`run.epochs=2`)."""
    given = [*SMALL, *overrides]
    groups = dict(item.split("=", 1) for item in given if item.split("=", 1)[0] in schema.GROUPS)
    cfg = copy.deepcopy(_composed(tuple(sorted(groups.items()))))
    cfg.merge_with(OmegaConf.from_dotlist([item for item in given if item.split("=", 1)[0] not in groups]))
    validation.check(cfg)
    return cfg


@functools.cache
def _composed(groups: tuple[tuple[str, str], ...]) -> DictConfig:
    schema.register()
    subprocess_launcher.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", use_cache=True, replace=True)
    with composer() as compose_one:
        full = compose_one.one([*SEARCHED, *(f"{group}={option}" for group, option in groups)])
        cfg = without_hydra(full)
        with open_dict(cfg):
            cfg["names"] = {group: full.hydra.runtime.choices.get(group) for group in schema.GROUPS}
    return cfg


class Notes:
    """A metrics logger that keeps everything."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.updates: list[dict[str, Any]] = []
        self.on_update: Callable[[], None] = lambda: None

    def log(self, row: dict[str, Any], samples_per_second: float | None = None) -> None:
        self.rows.append(row)

    def progress(self, **live: Any) -> None:
        self.updates.append(live)
        self.on_update()


class Trial:
    """A simulated run in memory: nothing is written but the timeline.

    Args:
        overrides: see `compose`.
        folder: for the timeline.
        stop_after: updates after which a signal is pretended to have come.
        oracle: another objective in the network's place; nothing is evaluated then.

    Attributes:
        saved: the checkpoints as (update, state), as copies.
    """

    def __init__(self, *overrides: str, folder: Path, stop_after: int | None = None, oracle: Any = None) -> None:
        self.components = build.build_run(compose(*overrides))
        evaluator: Any = self.components.evaluator()
        own = self.components
        told: dict[str, Any] = {"measure": own.measure, "classifies": own.classifies, "validator": own.validator()}
        if oracle is not None:
            self.components = dataclasses.replace(self.components, oracle=oracle)
            evaluator, told = _nothing, {}
        self.notes = Notes()
        self.saved: list[tuple[int, dict[str, Any]]] = []
        self.control = self.components.train_control(
            evaluator=evaluator,
            logger=self.notes,
            folder=folder,
            save=lambda updates, state: self.saved.append((updates, copy.deepcopy(state))),
            observers=self.components.observers(folder, 0),
            stopping=lambda: stop_after is not None and self.control.updates >= stop_after,
            **told,
        )
        self.executor = simulated(self.components, self.control)

    def run(self) -> Trial:
        """Run to the end."""
        self.executor.run()
        return self

    def watched_gradients(self) -> list[tuple[np.ndarray, np.ndarray, int]]:
        """Return a list that gets, of each gradient that is computed, the weights, the gradient, and the samples."""
        asked: list[tuple[np.ndarray, np.ndarray, int]] = []
        oracle = self.components.oracle
        gradient = oracle.gradient

        def watched(w: Tensor, batch: Any) -> Tensor:
            g = gradient(w, batch)
            asked.append((w.numpy().copy(), g.numpy().copy(), len(batch.ids)))
            return g

        oracle.gradient = watched
        return asked

    def stopped(self) -> dict[str, Any]:
        """Run until the pretended signal and return the state that was saved then."""
        with pytest.raises(Stop, match="interrupted"):
            self.executor.run()
        return self.saved[-1][1]

    def resume(self, state: dict[str, Any]) -> Trial:
        """Take over a saved state."""
        self.control.load_state_dict(state["course"])
        self.executor.load_state_dict(state["executor"])
        self.executor.bytes_sent = state.get("bytes_sent")
        return self

    @property
    def weights(self) -> dict[str, Tensor]:
        """Copies of the solution's parameters by name."""
        named = self.components.oracle.replica.named_weights(self.executor.weights())
        return {name: value.clone() for name, value in named}

    @property
    def sha256(self) -> str:
        """The solution's `weights_sha256`."""
        return weights_sha256(self.weights.items())

    @property
    def state(self) -> dict[str, Tensor]:
        """The method's own state tensors (of the first worker where each has its own)."""
        state = self.executor.state_dict()
        return state["method"] if "method" in state else state["methods"][0]


def train(*overrides: str, folder: Path) -> Trial:
    """Run what `overrides` describe to its end."""
    return Trial(*overrides, folder=folder).run()


def run_in(folder: Path, *overrides: str) -> tuple[int, dict[str, Any]]:
    """Run with a run folder, simulated or on processes; return the exit code and `summary.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    code = dispatch(compose(*overrides), folder)
    return code, json.loads((folder / "summary.json").read_text())


def when(condition: Callable[[], bool], act: Callable[[], object], seconds: float = 300.0) -> threading.Thread:
    """Act, in a thread of its own, as soon as a condition holds; the test has the main thread for the run."""

    def watch() -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                act()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def interrupt(number: signal.Signals) -> None:
    """Send this process a signal, provided that a run is there to take it: after its end it would end the tests."""
    if signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler):
        os.kill(os.getpid(), number)


def rows(folder: Path) -> int:
    """How many evaluations a run has written down so far."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def dcrun(*arguments: str) -> multiprocessing.process.BaseProcess:
    """Start the command in a process of its own, forked from one that has imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runner.train.ranks"])
    process = context.Process(target=_command, args=(list(arguments),))
    process.start()
    return process


def _command(arguments: list[str]) -> None:
    from runner.cli import main

    sys.exit(main.main(arguments))


def reference_sgd(cfg: DictConfig, **options: Any) -> tuple[nn.Module, Callable[[int, Callable[[int], float]], None]]:
    """Return a plain PyTorch network and the loop that trains it: `train(epochs, lr_of_update)`.

    Built without the runner's own classes; only names of random streams are taken from it.
    """
    dataset = instantiate(cfg.dataset)
    torch.manual_seed(derive(cfg.seed, "weights"))
    section = {key: value for key, value in cfg.model.items() if key != "weights"}
    network = instantiate(section, shape=dataset.shape, classes=dataset.classes)
    if cfg.run.channels_last:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, foreach=False, **options)

    def loop(epochs: int, lr: Callable[[int], float]) -> None:
        network.train()
        update = 0
        for epoch in range(epochs):
            generator = torch.Generator().manual_seed(derive(cfg.seed, "permutation", epoch))
            for ids in torch.randperm(len(dataset.train), generator=generator).split(cfg.run.batch_size):
                inputs, targets = dataset.train.batch(ids, seed=cfg.seed, epoch=epoch)
                if cfg.run.channels_last and inputs.dim() == 4:
                    inputs = inputs.to(memory_format=torch.channels_last)
                optimizer.param_groups[0]["lr"] = lr(update)
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(inputs), targets).backward()
                optimizer.step()
                update += 1

    return network, loop


class QuadraticOracle:
    """The objective w²/2 in one dimension for executors, with the interface of `runner.gradients.oracle.NetworkOracle`.

    Its gradient is w itself, so that a run can be worked out with pencil and paper; in float64.
    """

    streams = False

    class Replica:
        """One weight and no batch-norm statistics."""

        def __init__(self, start: float) -> None:
            self.weights = torch.tensor([start], dtype=torch.float64)
            self.gradient = torch.zeros(1, dtype=torch.float64)
            self.statistics = torch.empty(0)
            self.layers = (Layer("network", 0, 1),)

        def initial_statistics(self) -> Tensor:
            return torch.empty(0)

    def __init__(self, start: float) -> None:
        self.replica = self.Replica(start)
        self.totals = torch.zeros(3, dtype=torch.float64)
        self.device = torch.device("cpu")
        self.asked: list[tuple[float, list[int]]] = []

    def gradient(self, w: Tensor, batch: Any) -> Tensor:
        """Return w; notes at which weights and for which samples it was asked."""
        self.asked.append((float(w), batch.ids.tolist()))
        self.totals[2] += len(batch.ids)
        return self.replica.gradient.copy_(w)

    def expect(self, batch: Any) -> None:
        """Prepare nothing."""

    def reference_gradient(self, w: Tensor, batch: Any) -> Tensor:
        """Return w, uncounted."""
        return self.replica.gradient.copy_(w)

    def gradient_sum(self, w: Tensor, batch: Any) -> Tensor:
        """Return w times the number of samples, uncounted."""
        return self.replica.gradient.copy_(w).mul_(len(batch.ids))

    def take_totals(self) -> Tensor:
        """See `NetworkOracle.take_totals`."""
        totals = self.totals.clone()
        self.totals.zero_()
        return totals


def _nothing(weights: Tensor, statistics: Tensor) -> Score:
    return Score(0.0, 0.0)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of named tensors are the same to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
