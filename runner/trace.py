"""The order in which a parameter server handled its messages, written down so that the run can be executed again.

`trace.jsonl` begins with a line about the run: what a replay must have in common with it, and on what its bits depend.
Then comes a line for each message, as the server had handled and answered it:

    {"worker": 2, "pulled": 5, "version": 8, "batch": 9, "time": 0.71, "compute": 0.04, "waited": 0.001, "served": 0.002}

Worker 2 pushed the gradient on batch 9 at the weights after update 5; it became update 9. The times are the run's
seconds: when it was handled, how long the worker computed, how long the push lay at the server, and how long the server
was busy with it and the answer. A push is followed by the same worker's next pull, so pulls need no line. `{"lost": 3, ...}`
says that worker 3 was given up, `{"resumed": ...}` that the run was stopped and continued: all workers began anew.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from algorithms.base import ParameterServer
from runner import machine
from runner.build import Parts
from runner.errors import InputError
from runner.records import cut_lines, line

log = logging.getLogger("dcrun")

FILE = "trace.jsonl"
VERSION = 1
BUFFERED = 256
"""Messages between two writes to the file."""
PUSH, LOST, RESUMED = "push", "lost", "resumed"
MUST_AGREE = {
    "workers": "cluster.workers",
    "batch_size": "run.batch_size",
    "samples": "dataset",
    "dataset_fingerprint": "dataset",
    "epochs": "run.epochs",
}
"""What a replay must have in common with its trace, and the key that says it."""
BITS = ("isa", "cpu", "torch", "threads", "device", "precision", "channels_last", "compile")
"""What may differ, but then the last bits do."""
NUMBERS = ("pulled", "version", "batch")
TIMES = ("time", "compute", "waited", "served")


class Record(NamedTuple):
    """A line of a trace.

    Attributes:
        kind: `PUSH`, `LOST` or `RESUMED`.
        worker: from 0; -1 for `RESUMED`.
        version: updates before this event.
        time: the run's seconds after it.
        pulled: updates before the pull of the pushed gradient.
        batch: number of its batch.
        compute: seconds that the worker computed, as far as the run's clock went on.
        waited: seconds between arrival and being handled.
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


def facts(parts: Parts) -> dict[str, Any]:
    """Return what identifies a run for a replay: the content of a trace's first line."""
    cfg = parts.cfg
    return {
        "trace": VERSION,
        **{group: cfg.names[group] for group in ("algorithm", "model", "dataset", "cluster")},
        "seed": cfg.seed,
        "workers": parts.workers,
        "batch_size": cfg.run.batch_size,
        "epochs": float(cfg.run.epochs),
        "samples": len(parts.dataset.train),
        "dataset_fingerprint": parts.dataset.fingerprint,
        "parameters": parts.oracle.replica.weights.numel(),
        **{key: cfg.run[key] for key in ("precision", "channels_last", "compile")},
        "cpu": machine.cpu_model(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": parts.device.type,
    }


class Recorder:
    """Writes a trace. A trace that cannot be written is given up with a warning: the run goes on.

    Args:
        folder: the run folder.
        about: the first line, as of `facts`.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.path = folder / FILE
        self.about = about
        self.lines: int | None = None
        self._pending: list[str] = []
        self._failed = False

    @classmethod
    def of(cls, parts: Parts, folder: Path) -> Recorder | None:
        """Return what writes a run's trace; None where `cluster.record` says no: by default on all but real processes.

        Raises:
            InputError: `cluster.record` asks for the trace of a method without a parameter server.
        """
        cluster = parts.cfg.cluster
        if cluster.record and not isinstance(parts.method, ParameterServer):
            wrong = f"algorithm={parts.cfg.names.algorithm} has no parameter server, whose messages a trace tells of"
            raise InputError.of("cluster.record", True, wrong, "false, or null")
        wanted = cluster.kind == "processes" if cluster.record is None else cluster.record
        return cls(folder, facts(parts)) if wanted else None

    def begin(self) -> None:
        """Begin the file; one that is continued (`load_state_dict`) says so instead."""
        if self.lines is None:
            cut_lines(self.path, 0)
            self.lines = 0
            self._pending.append(line(self.about))
            self.flush()

    def push(
        self,
        worker: int,
        *,
        pulled: int,
        version: int,
        batch: int,
        time: float,
        compute: float = 0.0,
        waited: float = 0.0,
        served: float = 0.0,
    ) -> None:
        """Note a message that was handled; see `Record`."""
        self._pending.append(
            f'{{"worker": {worker}, "pulled": {pulled}, "version": {version}, "batch": {batch}, "time": {time!r}, '
            f'"compute": {compute!r}, "waited": {waited!r}, "served": {served!r}}}\n'
        )
        if len(self._pending) >= BUFFERED:
            self.flush()

    def lost(self, worker: int, *, version: int, time: float) -> None:
        """Note that a worker was given up."""
        self._pending.append(line({"lost": worker, "version": version, "time": time}))
        self.flush()

    def resumed(self, *, version: int, time: float) -> None:
        """Note that all workers begin anew, here and now."""
        machine_now = {key: self.about[key] for key in BITS}
        self._pending.append(line({"resumed": machine_now, "version": version, "time": time}))
        self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        if self.lines is None or self._failed:
            self._pending.clear()
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(self._pending)
        except OSError as error:
            self._failed = True
            log.warning("%s could not be written (%s); the run goes on, unrecorded", self.path, error.strerror or error)
        self.lines += len(self._pending)
        self._pending.clear()

    def state_dict(self) -> dict[str, Any]:
        """Flush, and return how many lines there are."""
        self.flush()
        return {"lines": self.lines}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the file back to what `state_dict` knew of; it goes on from there."""
        self.lines = cut_lines(self.path, state["lines"])
        self._failed = self.lines < state["lines"]
        if self._failed:
            log.warning("%s is incomplete; the run goes on, unrecorded", self.path)


class Trace:
    """A recorded schedule.

    Args:
        path: where it was read from.
        about: its first line.
        records: the others.
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
        """Read a trace, from its file or from the run folder it lies in.

        Raises:
            InputError: there is none, or it is damaged; names the line.
        """
        path = Path(place)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            wrong = f"{path} does not exist" if path.name == FILE else "no such file"
            allowed = f"a run folder with a {FILE} (of a parameter-server method), or that file"
            raise InputError.of("cluster.trace", place, wrong, allowed)
        content = path.read_bytes()
        # A kill can tear the last line.
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        try:
            about = json.loads(lines[0]) if lines else None
            if not isinstance(about, dict) or about.get("trace") != VERSION:
                raise ValueError(f"line 1 does not begin a trace of version {VERSION}")
            missing = [key for key in (*MUST_AGREE, *BITS) if key not in about]
            if missing:
                raise ValueError(f"line 1 lacks {', '.join(missing)}")
            records = [_record(json.loads(text), number, about) for number, text in enumerate(lines[1:], start=2)]
        except ValueError as error:
            raise InputError.of("cluster.trace", str(path), str(error), "a whole trace.jsonl") from error
        return cls(path, about, records)

    def check(self, parts: Parts) -> None:
        """Refuse a run that the trace does not fit, warn where its bits will differ.

        Raises:
            InputError: naming the key that differs.
        """
        mine = facts(parts)
        for name, key in MUST_AGREE.items():
            if mine[name] != self.about[name]:
                value = mine[name] if key != "dataset" else parts.cfg.names.dataset
                what = {"samples": "training samples", "dataset_fingerprint": "content"}.get(name)
                differs = f"its {what} are {mine[name]}, the trace has {self.about[name]}"
                wrong = differs if what else f"the trace in {self.path} was recorded with {self.about[name]}"
                allowed = f"the data of the recording ({self.about.get('dataset')})" if what else str(self.about[name])
                raise InputError.of(key, value, wrong, allowed)
        for about in [self.about, *self._machines()]:
            differing = [key for key in BITS if mine[key] != about[key]]
            if differing:
                pairs = ", ".join(f"{key} {about[key]} (here {mine[key]})" for key in differing)
                log.warning("the trace was recorded with %s: the schedule is the same, the last bits are not", pairs)
        if self.updates < len(parts.batches):
            stopped = f"its run ended after update {self.updates} of {len(parts.batches)}; so does the replay"
            log.warning("the trace is of a part of a run: %s", stopped)

    def _machines(self) -> list[dict[str, Any]]:
        """What the run went on with after each stop."""
        return self.about.get("continued", [])


def _record(row: Any, number: int, about: dict[str, Any]) -> Record:
    """Check a line.

    Raises:
        ValueError: it is not of a trace.
    """
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no message")
    if "resumed" in row:
        if not isinstance(row["resumed"], dict) or set(BITS) - row["resumed"].keys():
            raise ValueError(f"line {number} is no message")
        about.setdefault("continued", []).append(row["resumed"])
    kind = RESUMED if "resumed" in row else LOST if "lost" in row else PUSH
    worker = {PUSH: row.get("worker"), LOST: row.get("lost"), RESUMED: -1}[kind]
    counts = {key: row.get(key) for key in (NUMBERS if kind == PUSH else ("version",))}
    times = {key: row.get(key) for key in (TIMES if kind == PUSH else ("time",))}
    whole = all(type(value) is int and value >= 0 for value in counts.values())
    finite = all(type(value) in (int, float) and math.isfinite(value) for value in times.values())
    if type(worker) is not int or not -1 <= worker < about["workers"] or (worker < 0 and kind != RESUMED):
        raise ValueError(f"line {number} is of worker {worker}, the trace of workers 0 to {about['workers'] - 1}")
    if not whole or not finite:
        raise ValueError(f"line {number} is no message")
    return Record(kind, worker, **counts, **times)
