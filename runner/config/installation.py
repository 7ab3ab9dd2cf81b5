"""Where the project's code lies: in a clone, or installed inside the package `dcrun` (`runner/cli/entry/dcrun`)."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder with `algorithms`, `conf`, `data`, `models` and `runner`."""
NAMES = ("algorithms", "conf", "data", "models", "runner")
"""The names under which they are imported."""
PROGRAM = "dcrun" if (ROOT / "__main__.py").is_file() else "runner.cli"
"""What `python -m` starts the command with: only a wheel is sure to have `dcrun`, only a clone `runner.cli`."""
