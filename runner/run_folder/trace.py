"""Reads and checks traces: the order in which a parameter server handled its messages, so that a run can be replayed.

`trace.jsonl` begins with a line about the run: what a replay must have in common with it, and what its bits depend on.
Then it has a line for each message, in the order in which the server handled and answered them:

    {"worker": 2, "pulled": 5, "version": 8, "batch": 9, "time": 0.71, "compute": 0.04, "waited": 0.01, "served": 0.002}

Worker 2 pushed the gradient on batch 9 at the weights after update 5; it became update 9. The times are seconds of the
run: when the push was handled, how long the worker computed, how long the push waited at the server, and how long the
server was busy with it and the answer. The run's clock stands at evaluations, the workers do not: where one computed
meanwhile, `"took"` says for how long in all. Where the method let the worker wait for the batch, `"withheld"` says for
how long. Where a worker takes several steps before it pushes, `"steps"` says on how many batches, and `"batch"` is the
first of them. `{"lost": 3, ...}` says that worker 3 was lost, `{"resumed": ...}` that a run was stopped and continued,
with all workers starting again. `{"barrier": 1000, "time": 9.3}` says that a barrier after update 1000 was over at
9.3 s. `{"stopped": 2, "pulled": 5, ...}`, with what else a push has, says that worker 2 was told to stop, has dropped
what it computed, and got its batches again with the weights of then. `runner.run_folder.recorder` writes traces.

A trace holds neither gradients nor weights: these follow from the seed, the batches and the order. It holds no pulls
either: the server answers a push with the same worker's next pull, at once or when the method admits it, so the order
of the pushes determines both. The times do not change the result. `dcrun-fit` fits the virtual clock to them, and a
replay takes its seconds from them.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig

from algorithms.base import ParameterServer, Stateful, message_bytes
from runner.config.errors import InputError, shown
from runner.config.paths import expanded
from runner.run_folder import machine
from runner.run_folder.jsonl import to_line

log = logging.getLogger("dcrun")

FILE = "trace.jsonl"
VERSION = 1
PUSH, LOST, RESUMED, BARRIER, STOPPED = "push", "lost", "resumed", "barrier", "stopped"
# What decides which samples a batch's number means, and how many batches and workers there are.
MUST_AGREE = {
    "workers": "cluster.workers",
    "batch_size": "run.batch_size",
    "samples": "dataset",
    "dataset_fingerprint": "dataset",
    "epochs": "run.epochs",
}
"""Names in a trace's first line that a replay must agree with, and the configuration key of each."""
# What decides in which order kernels add up, or with how many digits.
BITS = ("isa", "cpu", "torch", "threads", "device", "precision", "channels_last", "compile")
"""Names in the first line that may differ; then the last bits differ too."""
SIZES = ("pull_bytes", "push_bytes", "gradients")
"""Names in the first line on which only the times depend."""


class Record(NamedTuple):
    """A line of a trace.

    Attributes:
        kind: `PUSH`, `LOST`, `RESUMED`, `BARRIER` or `STOPPED`.
        worker: from 0; -1 for `RESUMED` and `BARRIER`.
        version: updates before this event.
        time: seconds of the run when it was over.
        pulled: updates before the pull of the pushed gradient.
        batch: number of its batch, the first of several.
        compute: seconds that the worker computed while the run's clock was running.
        took: seconds that it computed in all; None if these are the same.
        withheld: seconds that the server let the worker wait for this batch.
        steps: number of its batches, on each of which the worker took a step.
        waited: seconds that the push waited at the server.
        served: seconds that the server was busy with it and the answer.
    """

    kind: str
    worker: int
    version: int
    time: float
    pulled: int = 0
    batch: int = 0
    compute: float = 0.0
    waited: float = 0.0
    served: float = 0.0
    took: float | None = None
    withheld: float = 0.0
    steps: int = 1

    @property
    def computing(self) -> float:
        """Return the seconds that the worker computed, whatever the run's clock did."""
        return self.compute if self.took is None else self.took


def trace_facts(
    cfg: DictConfig,
    server: ParameterServer,
    *,
    workers: int,
    samples: int,
    parameters: int,
    dataset_fingerprint: str,
    device: torch.device,
) -> dict[str, Any]:
    """Return the content of a trace's first line, which identifies the run for a replay.

    Args:
        cfg: the composed configuration.
        server: the method; it need not be started.
        workers: number of workers M.
        samples: size of the training set.
        parameters: number n of weights.
        dataset_fingerprint: fingerprint of the data set's content.
        device: device that computes the gradients.
    """
    layout = server.layout(parameters)
    return {
        # First, and the only line with it: other files of JSON lines are told from traces by this key.
        "trace": VERSION,
        **{group: cfg.names[group] for group in ("algorithm", "model", "dataset", "cluster")},
        "seed": cfg.seed,
        "workers": workers,
        "batch_size": cfg.run.batch_size,
        "epochs": float(cfg.run.epochs),
        "samples": samples,
        "dataset_fingerprint": dataset_fingerprint,
        "parameters": parameters,
        "pull_bytes": message_bytes(layout.pull),
        "push_bytes": message_bytes(layout.push),
        "gradients": server.cost.gradients,
        "barriers": barriers(server),
        **{key: cfg.run[key] for key in ("precision", "channels_last", "compile")},
        "cpu": machine.cpu_model(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device.type,
    }


def with_epochs(first_line: bytes, epochs: float) -> bytes:
    """Return a trace's first line, without its newline, for a run that was made longer."""
    return to_line({**json.loads(first_line), "epochs": float(epochs)}).rstrip("\n").encode()


def barriers(method: Stateful) -> list[int] | None:
    """Return the number of updates before a method's first barrier and between two barriers.

    Return None if the method has no barriers.
    """
    if method.barrier_every is None:
        return None
    # A list, as JSON gives it back: a tuple would never equal what was read.
    return [method.barrier_every if method.barrier_from is None else method.barrier_from, method.barrier_every]


class Trace:
    """A recorded schedule.

    Args:
        path: the file that it was read from.
        about: its first line.
        records: its other lines.
    """

    def __init__(self, path: Path, about: dict[str, Any], records: list[Record]) -> None:
        self.path = path
        self.about = about
        self.records = records

    @property
    def updates(self) -> int:
        """Number of messages."""
        return sum(record.kind == PUSH for record in self.records)

    @classmethod
    def read(cls, place: str) -> Trace:
        """Read a trace from its file, or from the run folder that holds it.

        Raises:
            InputError: there is no trace, or it is damaged; names the line.
        """
        path = expanded(place, "cluster.trace")
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            wrong = f"{path} does not exist" if path.name == FILE else "no such file"
            allowed = f"a run folder with a {FILE} (of a parameter-server method), or that file"
            raise InputError.of("cluster.trace", place, wrong, allowed)
        content = path.read_bytes()
        # A kill can cut the last line off, so a line without its newline is not read.
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        try:
            about = json.loads(lines[0]) if lines else None
            if not isinstance(about, dict) or about.get("trace") != VERSION:
                raise ValueError(f"line 1 does not begin a trace of version {VERSION}")
            # Asked here, so that no reader further down has to handle a first line that lacks a key.
            missing = [key for key in (*MUST_AGREE, *BITS, *SIZES) if key not in about]
            if missing:
                raise ValueError(f"line 1 lacks {', '.join(missing)}")
            records = [_record(json.loads(text), number, about) for number, text in enumerate(lines[1:], start=2)]
        except ValueError as error:
            raise InputError.of("cluster.trace", str(path), str(error), "a whole trace.jsonl") from error
        return cls(path, about, records)

    @property
    def batches(self) -> int:
        """Number of batches that its messages are of."""
        return sum(record.steps for record in self.records if record.kind == PUSH)

    def check(self, mine: Mapping[str, Any], batches: int) -> None:
        """Refuse a run that does not fit the trace, and warn if its last bits will differ.

        Args:
            mine: the `trace_facts` of the run.
            batches: number of batches that the run has.

        Raises:
            InputError: naming the key that differs.
        """
        for name, key in MUST_AGREE.items():
            if mine[name] != self.about[name]:
                value = mine[name] if key != "dataset" else mine["dataset"]
                what = {"samples": "training samples", "dataset_fingerprint": "content"}.get(name)
                differs = f"its {what} are {mine[name]}, the trace has {self.about[name]}"
                wrong = differs if what else f"the trace in {self.path} was recorded with {shown(self.about[name])}"
                allowed = (
                    f"the data of the recording ({self.about.get('dataset')})" if what else shown(self.about[name])
                )
                raise InputError.of(key, value, wrong, allowed)
        # A replay may take another method, but its workers have to meet after the same updates.
        theirs = self.about.get("barriers")
        if mine["barriers"] != theirs:
            said = [
                f"has barriers after update {found[0]} and then every {found[1]}" if found else "has no barriers"
                for found in (mine["barriers"], theirs)
            ]
            wrong = f"it {said[0]}, the recorded run {said[1]}"
            raise InputError.of("algorithm", mine["algorithm"], wrong, "methods whose workers meet as often")
        # A run may have gone on on another machine: the bits depend on each of them.
        for about in [self.about, *self._machines()]:
            differing = [key for key in BITS if mine[key] != about[key]]
            if differing:
                pairs = ", ".join(f"{key} {about[key]} (here {mine[key]})" for key in differing)
                log.warning("the trace was recorded with %s: the schedule is the same, the last bits are not", pairs)
        # Allowed: a replay of the first half of a run is that half.
        if self.batches < batches:
            stopped = f"its run ended after batch {self.batches} of {batches}; so does the replay"
            log.warning("the trace is of a part of a run: %s", stopped)

    def _machines(self) -> list[dict[str, Any]]:
        """Return the machine and settings with which the run continued after each stop."""
        return self.about.get("continued", [])


def _record(row: Any, number: int, about: dict[str, Any]) -> Record:
    """Check and return a line.

    Raises:
        ValueError: it is not a line of a trace.
    """
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is not a message")
    if "resumed" in row:
        if not isinstance(row["resumed"], dict) or set(BITS) - row["resumed"].keys():
            raise ValueError(f"line {number} is not a message")
        # Kept beside the first line, so that `check` compares every machine of the run.
        about.setdefault("continued", []).append(row["resumed"])
    if "lost" in row:
        return Record(
            LOST,
            _whole(row, "lost", number, about["workers"]),
            _whole(row, "version", number),
            _time(row, "time", number),
        )
    if "barrier" in row:
        return Record(BARRIER, -1, _whole(row, "barrier", number), _time(row, "time", number))
    if "resumed" in row:
        return Record(RESUMED, -1, _whole(row, "version", number), _time(row, "time", number))
    kind, worker = (STOPPED, "stopped") if "stopped" in row else (PUSH, "worker")
    return Record(
        kind,
        _whole(row, worker, number, about["workers"]),
        version=_whole(row, "version", number),
        time=_time(row, "time", number),
        pulled=_whole(row, "pulled", number),
        batch=_whole(row, "batch", number),
        compute=_time(row, "compute", number),
        waited=_time(row, "waited", number),
        served=_time(row, "served", number),
        took=_time(row, "took", number) if "took" in row else None,
        withheld=_time(row, "withheld", number) if "withheld" in row else 0.0,
        steps=_whole(row, "steps", number) if "steps" in row else 1,
    )


def _whole(row: dict[str, Any], key: str, number: int, below: float = math.inf) -> int:
    value = row.get(key)
    # Not isinstance, for which True is an integer.
    if type(value) is not int or not 0 <= value < below:
        raise ValueError(f"line {number} is not a message: its {key} is {value!r}")
    return value


def _time(row: dict[str, Any], key: str, number: int) -> float:
    value = row.get(key)
    # JSON from Python may hold NaN, which would pass as a number and spoil every sum after it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"line {number} is not a message: its {key} is {value!r}")
    return float(value)
