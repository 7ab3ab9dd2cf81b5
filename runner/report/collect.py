"""Finds run folders and reads what is in them, finished or not, whole or broken."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

_LEFT_BY_RUNS = frozenset({"summary.json", "metrics.jsonl"})
_NOT_ENTERED = frozenset({"checkpoints", "wandb", ".hydra", ".git", ".venv", "__pycache__"})
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML_BYTES, _NESTED, _CHAINED = 1_000_000, 2000, re.compile(r"([-?:] ){40}")
_TIMELINE_BYTES = 40_000


@dataclass
class Run:
    """A run folder as it was found.

    Attributes:
        folder: where it lies.
        name: its path below the place that was searched, as one would point at it.
        summary: `summary.json`; empty where there is none.
        rows: the lines of `metrics.jsonl`; what cannot be read is left out.
        config: the composed configuration, sections as dictionaries.
        overrides: the command line.
        problems: what could not be read, in words.
    """

    folder: Path
    name: str
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The configuration with dotted keys, as `schedule.lr`; lists stay lists."""
        return dict(_flattened(self.config))

    @cached_property
    def choices(self) -> dict[str, Any]:
        """The option chosen of each config group; read only where the summary lacks it, because the file is long."""
        hydra = _configuration(_first(self.folder, "hydra.yaml"), [], resolve=False).get("hydra")
        choices = hydra.get("runtime", {}).get("choices") if isinstance(hydra, Mapping) else None
        return dict(choices) if isinstance(choices, Mapping) else {}

    @property
    def status(self) -> str:
        """How the run ended, 'running' included; 'broken' where its summary cannot be read."""
        status = self.summary.get("status")
        return status if isinstance(status, str) else "broken"

    @property
    def ended(self) -> bool:
        """Whether it went as far as it could: what one that was stopped, or still runs, has is no measurement."""
        return self.status in ("completed", "diverged")

    @property
    def seed(self) -> int | None:
        """The run's seed, if known."""
        seed = self.summary.get("seed", self.config.get("seed"))
        return seed if isinstance(seed, int) else None

    def value(self, key: str) -> Any:
        """Looks a setting up: in the summary, in the configuration, then among the groups' options.

        Args:
            key: as `workers`, `algorithm`, `schedule.lr`.

        Returns:
            the value, None if the run does not know it.
        """
        if (found := self.summary.get(key)) is not None:
            return found
        if key in self.flat:
            return self.flat[key]
        return self.choices.get(key) if "." not in key else None

    def number(self, key: str) -> float | None:
        """A finite number of the summary, else None."""
        return finite(self.summary.get(key))

    def curve(self, key: str) -> list[float | None]:
        """A column of the metrics; None where a row has no finite number."""
        return [finite(row.get(key)) for row in self.rows]

    def layers(self, quantity: str) -> list[dict[str, Any]]:
        """The lines of `layers.jsonl` that have a quantity, as `variance_factor`, per layer."""
        return [row for row in _lines(self.folder / "layers.jsonl", []) if isinstance(row.get(quantity), Mapping)]

    def workers(self) -> dict[str, Any]:
        """`workers.json`: what each worker did in total, and the staleness histogram; empty where there is none."""
        return _document(self.folder / "workers.json", [])

    def timeline(self, spans: int) -> list[dict[str, Any]]:
        """The first spans of `timeline.jsonl`: the file of a long run is far too long to be shown."""
        rows = _lines(self.folder / "timeline.jsonl", [], limit=_TIMELINE_BYTES)
        whole = [row for row in rows if all(finite(row.get(key)) is not None for key in ("worker", "start", "end"))]
        return whole[:spans]


def finite(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def collect(paths: Iterable[Path]) -> list[Run]:
    """Reads every run folder below some paths; a path may be a run folder itself.

    Returns:
        the runs in the order of their folders, each once.
    """
    found: dict[Path, str] = {}
    for path in paths:
        for folder in _run_folders(path):
            name = str(folder.relative_to(path)) if folder != path else folder.name
            found.setdefault(folder.resolve(), name)
    return [read(folder, name) for folder, name in found.items()]


def read(folder: Path, name: str) -> Run:
    """Reads a run folder; what is missing or broken becomes a line in `problems`."""
    run = Run(folder, name)
    run.summary = _document(folder / "summary.json", run.problems)
    run.rows = _lines(folder / "metrics.jsonl", run.problems)
    run.config = _configuration(_first(folder, "config.yaml"), run.problems)
    overrides = _yaml(_first(folder, "overrides.yaml"), [])
    run.overrides = [str(override) for override in overrides] if isinstance(overrides, list) else []
    return run


def _run_folders(path: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(path):
        below[:] = sorted(name for name in below if name not in _NOT_ENTERED)
        started = ".hydra" in os.listdir(folder) and "multirun.yaml" not in files
        if started or not _LEFT_BY_RUNS.isdisjoint(files):
            yield Path(folder)


def _first(folder: Path, name: str) -> Path:
    kept = folder / ".hydra" / name
    return kept if kept.exists() else folder / name


def _document(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        problems.append(f"{path.name}: {_reason(exc)}")
        return {}
    if isinstance(document, dict):
        return document
    problems.append(f"{path.name}: is no JSON object")
    return {}


def _lines(path: Path, problems: list[str], limit: int = -1) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            content = file.read(limit)
    except OSError as exc:
        problems.append(f"{path.name}: {_reason(exc)}")
        return []
    rows, unread = [], 0
    # A last line without its end was cut off by a kill, or is being written.
    for text in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            unread += 1
    if unread:
        problems.append(f"{path.name}: {unread} {'line' if unread == 1 else 'lines'} cannot be read")
    return rows


def _configuration(path: Path, problems: list[str], *, resolve: bool = True) -> dict[str, Any]:
    document = _yaml(path, problems)
    if not isinstance(document, dict):
        if document is not None:
            problems.append(f"{path.name}: is no mapping")
        return {}
    plain: dict[str, Any] = {str(key): value for key, value in document.items()}
    if resolve and "${" in str(plain):
        try:
            plain = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)  # type: ignore[assignment]
        except OmegaConfBaseException as exc:
            problems.append(f"{path.name}: {_reason(exc)}")
    return plain


def _yaml(path: Path, problems: list[str]) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        # The C loader recurses without a limit: what is nested deeper than any configuration would end the process.
        if len(text) > _YAML_BYTES or max(text.count("["), text.count("{")) > _NESTED or _CHAINED.search(text):
            raise ValueError("is no configuration")
        return yaml.load(text, _LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as exc:
        problems.append(f"{path.name}: {_reason(exc)}")
        return None


def _reason(exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return "is missing"
    return (str(exc).splitlines() or [type(exc).__name__])[0]


def _flattened(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
