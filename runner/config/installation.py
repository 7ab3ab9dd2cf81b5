"""Where the project's code is: in a clone, or installed inside the package `dcrun` (`runner/cli/entry/dcrun`)."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder with `algorithms`, `conf`, `data`, `models` and `runner`."""
NAMES = ("algorithms", "conf", "data", "models", "runner")
"""The names under which they are imported."""
PROGRAM = "dcrun" if (ROOT / "__main__.py").is_file() else "runner.cli"
"""The module that `python -m` runs to start the command: a clone need not have `dcrun`, a wheel has no `runner.cli`."""
COMMAND = "runner.cli.main"
"""The module with the command itself, which that imports."""
