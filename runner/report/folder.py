"""Reads a run folder, finished or not, whole or broken: what cannot be read becomes a line of the run's problems."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.config import yaml_text
from runner.report.run import SPANS, Run, finite
from runner.run_folder import jsonl
from runner.run_folder.contents import LAYERS, METRICS, SUMMARY, TIMELINE, WORKERS

# libyaml's loader is several times as fast, which counts with hundreds of runs; PyYAML may be built without it.
YAML_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TIMELINE_BYTES = 40_000


class FolderRun(Run):
    """A run in its folder; the files that few runs are asked for are read when they are."""

    @cached_property
    def choices(self) -> dict[str, Any]:
        """The option chosen of each config group; read only if the summary lacks it, because the file is long."""
        hydra = _configuration(_first(self.folder, "hydra.yaml"), [], resolve=False).get("hydra")
        choices = hydra.get("runtime", {}).get("choices") if isinstance(hydra, Mapping) else None
        return dict(choices) if isinstance(choices, Mapping) else {}

    def layer_rows(self) -> list[dict[str, Any]]:
        """Return the rows of `layers.jsonl`."""
        # The list of problems is thrown away, here and below: most runs lack these files, and are whole without them.
        return _lines(self.folder / LAYERS, [])

    def workers(self) -> dict[str, Any]:
        """Return `workers.json`; empty if there is none."""
        return _document(self.folder / WORKERS, [])

    def timeline(self) -> list[dict[str, Any]]:
        """Return the first spans of `timeline.jsonl`, at most `SPANS`, without reading the whole file."""
        rows = _lines(self.folder / TIMELINE, [], most_bytes=_TIMELINE_BYTES)
        # The page draws spans without asking again, so half-written rows go.
        whole = [row for row in rows if all(finite(row.get(key)) is not None for key in ("worker", "start", "end"))]
        return whole[:SPANS]


def read(folder: Path, name: str) -> FolderRun:
    """Read a run folder; what is missing or broken becomes a line in `problems`."""
    run = FolderRun(folder, name)
    run.summary = _document(folder / SUMMARY, run.problems)
    run.rows = _lines(folder / METRICS, run.problems)
    run.config = _configuration(_first(folder, "config.yaml"), run.problems)
    # The overrides only tell how to repeat the run; a folder without them is whole, so no problem is noted.
    overrides = _yaml(_first(folder, "overrides.yaml"), [])
    run.overrides = [str(override) for override in overrides] if isinstance(overrides, list) else []
    return run


def _first(folder: Path, name: str) -> Path:
    kept = folder / ".hydra" / name
    return kept if kept.exists() else folder / name


def _document(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        _refuse_pipe(path)
        return jsonl.read_document(path)
    except (OSError, ValueError) as exc:
        problems.append(_problem(path, exc))
        return {}


def _lines(path: Path, problems: list[str], most_bytes: int = -1) -> list[dict[str, Any]]:
    try:
        _refuse_pipe(path)
        # Lines that cannot be read are counted, not fatal: the rest of a curve is still a curve.
        rows, unread = jsonl.scan_lines(path, most_bytes)
    except (OSError, ValueError) as exc:
        problems.append(_problem(path, exc))
        return []
    if unread:
        problems.append(f"{path.name}: {unread} {'line' if unread == 1 else 'lines'} cannot be read")
    return rows


def _configuration(path: Path, problems: list[str], *, resolve: bool = True) -> dict[str, Any]:
    document = _yaml(path, problems)
    if not isinstance(document, dict):
        if document is not None:
            problems.append(f"{path.name}: is not a mapping")
        return {}
    plain: dict[str, Any] = {str(key): value for key, value in document.items()}
    # Resolving through OmegaConf is slow, and hardly any recorded configuration has an interpolation.
    if resolve and "${" in str(plain):
        try:
            plain = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)  # type: ignore[assignment]
        except OmegaConfBaseException as exc:
            problems.append(_problem(path, exc))
    return _as_json(plain) if resolve else plain


def _as_json(value: Any) -> Any:
    """Return a YAML value as JSON would give it back, so that an archived run has the very same configuration."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _yaml(path: Path, problems: list[str]) -> Any:
    try:
        return yaml.load(yaml_text.read_text(path), YAML_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as exc:
        problems.append(_problem(path, exc))
        return None


def _refuse_pipe(path: Path) -> None:
    """Refuse what is no file: opening a pipe would wait for ever for somebody to write to it."""
    if path.exists() and not path.is_file():
        raise ValueError("is not a plain file")


def _problem(path: Path, exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return f"{path.name}: is missing"
    # Some exceptions have no text; the path in front is in the line already.
    reason = (str(exc).splitlines() or [type(exc).__name__])[0]
    return f"{path.name}: {reason.removeprefix(f'{path} ')}"
