"""The real code under measurement: runs composed as on the command line, driven part by part."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict

from runner.cli.compose import composer
from runner.config import schema
from runner.config.schema import without_hydra
from runner.loop.executor import Executor
from runner.loop.train_control import TrainControl
from runner.run_folder.contents import SUMMARY
from runner.sweeps import subprocess_launcher
from runner.train import build
from runner.train.executors import simulated
from runner.train.train import train


def build_components(overrides: Sequence[str]) -> build.RunComponents:
    """Build the components of the run that `dcrun <overrides>` would make."""
    schema.register()
    subprocess_launcher.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    with composer() as compose:
        # What the benchmark does not ask for it must not get: other processes take cores from what is measured.
        composed = compose.one(["logger=none", "run.compute_processes=1", *overrides])
        cfg = without_hydra(composed)
        with open_dict(cfg):
            cfg["names"] = {group: composed.hydra.runtime.choices.get(group) for group in schema.GROUPS}
    return build.build_run(cfg)


def run(given: build.RunComponents, make: Callable[[TrainControl], Executor] | None = None) -> dict[str, Any]:
    """Make a whole run, run folder and progress included, and return its `summary.json`.

    Args:
        given: the components. Used again for further runs; the method and the weights begin anew or go on then.
        make: builds the executor, by default the simulated one.
    """
    with tempfile.TemporaryDirectory(prefix="dcrun-bench-") as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        code = train(given, folder, make or (lambda control: simulated(given, control)), virtual=True)
        summary = json.loads((folder / SUMMARY).read_text())
    if code or summary["status"] not in ("completed", "diverged"):
        raise RuntimeError(f"the measured run ended with exit code {code}, {summary['status']}")
    return summary
