"""Execute a recorded schedule in simulation: the same messages in the same order, and so the same weights, bit for bit.

The algorithm, its settings and the learning rate may be others than those of the recording: then it is the delays that
are the same.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from runner.config import yaml_text
from runner.config.errors import InputError
from runner.config.old_names import rename_targets
from runner.config.schema import DATA_PLACE
from runner.run_folder.contents import read_summary
from runner.run_folder.trace import FILE, Trace
from runner.train.build import build_run
from runner.train.executors import simulated
from runner.train.train import train
from runner.train.workers import set_workers

log = logging.getLogger("dcrun")

# Not `cluster`: the recording was on processes, the replay is not, and what matters of it is the trace.
SECTIONS = ("algorithm", "model", "dataset", "schedule", "seed")
RUN_KEYS = ("epochs", "batch_size", "device", "precision", "threads", "compile", "channels_last", "micro_batch")


def run_replay(cfg: DictConfig, folder: Path) -> int:
    """Replay `cluster.trace`.

    Args:
        cfg: the composed configuration.
        folder: the run folder; the trace is copied there, so that it can be continued, and replayed in its turn.

    Returns:
        The exit code, as from `runner.train.dispatch.dispatch`.

    Raises:
        InputError: the trace cannot be read, or does not fit the run.
    """
    own = folder / FILE
    # A replay that goes on reads its own copy: the recording may have been moved since.
    trace = read_trace(cfg, str(own) if cfg.run.resume and own.is_file() else cfg.cluster.trace)
    # After the trace was read: it sets the number of workers, on which batches and initial shards depend.
    components = build_run(cfg)
    # With the fingerprint of the data: other samples under the same ids would give other weights, without an error.
    trace.check(components.trace_facts(), len(components.batches))
    # The trace may be named by the run folder that it is in already.
    if not own.exists() or not own.samefile(trace.path):
        shutil.copyfile(trace.path, own)
    # No folder, so nothing is recorded: the trace in it is the one that is read.
    code = train(components, folder, lambda control: simulated(components, control, trace=trace), virtual=True)
    if (verdict := compare(trace, cfg, folder)) is not None:
        print(verdict)
    return code


def read_trace(cfg: DictConfig, path: str) -> Trace:
    """Read a trace, and take the number of workers from it.

    Raises:
        InputError: the trace cannot be read, the method cannot replay one, or another number of workers was given.
    """
    if not get_class(cfg.algorithm._target_).has_server:
        what = "has no parameter server, so it has no order of messages to replay"
        raise InputError.of("algorithm", cfg.names.algorithm, what, "methods on a parameter server")
    trace = Trace.read(path)
    workers = trace.about["workers"]
    set_workers(cfg, workers, f"the trace in {trace.path} was recorded with {workers}")
    if cfg.run.threads is None:
        cfg.run.threads = trace.about["threads"]  # the recorded bits are those of so many
    return trace


def compare(trace: Trace, cfg: DictConfig, folder: Path) -> str | None:
    """Compare the weights of a replay with the recorded run's.

    Returns:
        One line; None if the two are different trainings, or the recorded run's folder does not say.
    """
    theirs, mine = read_summary(trace.path.parent), read_summary(folder)
    config = trace.path.parent / ".hydra" / "config.yaml"
    # A replay that goes on reads its own copy of the trace, and would be compared with itself.
    if trace.path.parent == folder or not theirs.get("weights_sha256") or not config.is_file():
        return None
    recorded: Any = yaml_text.load(config)
    rename_targets(recorded)
    if recorded["run"].get("threads") is None:
        recorded["run"]["threads"] = trace.about["threads"]
    # Only equal trainings are compared: what differs by intent would read like a failure.
    if mine.get("updates") != theirs.get("updates") or identity(recorded) != identity(cfg):
        return None
    same = mine["weights_sha256"] == theirs["weights_sha256"]
    if not same:
        log.warning("weights_sha256 %s differs from the recorded %s", mine["weights_sha256"], theirs["weights_sha256"])
    return f"weights: {'bit for bit' if same else 'NOT'} those of the recorded run in {trace.path.parent}"


def identity(cfg: Any) -> dict[str, Any]:
    """Return what decides a run's weights besides the schedule of messages, as plain values."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    dataset = {key: value for key, value in plain["dataset"].items() if key not in DATA_PLACE}
    sections = {key: plain.get(key) for key in SECTIONS} | {"dataset": dataset}
    return sections | {key: plain["run"].get(key) for key in RUN_KEYS}
