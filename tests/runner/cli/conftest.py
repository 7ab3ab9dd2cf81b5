"""The command without its runs: what it would have run is noted."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import DictConfig

from runner.cli import start

Execute = Callable[[DictConfig, Path | None], int]


class Executed(list[tuple[DictConfig, Path | None]]):
    """The runs that `dcrun` would have started; `behave` may be replaced by what a run is to do."""

    behave: Execute = staticmethod(lambda cfg, folder: 0)

    def __init__(self) -> None:
        super().__init__()
        # What fork servers would have imported.
        self.servers: list[tuple[str, ...]] = []

    def dispatch(self, cfg: DictConfig, folder: Path | None) -> int:
        self.append((cfg, folder))
        if folder is not None:
            (folder / "summary.json").write_text(json.dumps({"status": "running"}))
        return self.behave(cfg, folder)


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Executed]:
    """Runs nothing, in an empty folder, and records what would have been run."""
    record = Executed()
    module = ModuleType("runner.train.dispatch")
    module.dispatch = record.dispatch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "runner.train.dispatch", module)
    # Nothing that is run here starts processes.
    monkeypatch.setattr(start, "forkserver_context", lambda *modules: record.servers.append(modules))
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield record
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
