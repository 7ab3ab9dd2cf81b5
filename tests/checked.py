"""Which methods the suite of all methods takes: those of `conf/algorithm`, or those that `dcrun-check` names."""

from __future__ import annotations

import os
from pathlib import Path

from runner.cli.compose import CONF
from runner.cli.dcrun_check import CHECKED
from runner.config.paths import quoted

_NAMED = [Path(place) for place in os.environ.get(CHECKED, "").split(os.pathsep) if place]
_FOLDERS = sorted({path.parents[1] for path in _NAMED} - {CONF})

OPTIONS = {path.stem: path for path in _NAMED or sorted((CONF / "algorithm").glob("*.yaml"))}
"""The files of their options, by name."""
SEARCHED = [f"hydra.searchpath=[{','.join(quoted(str(folder)) for folder in _FOLDERS)}]"] if _FOLDERS else []
"""What a composition needs to find them."""
