"""The one package that an installed dcrun adds: its commands and `python -m dcrun` start here.

The code says `import models` and `import data`; in somebody's site-packages such names would hide their own packages,
or be hidden by them. So a wheel has the project's folders inside this package, and a command puts this place first on
`sys.path` before it imports any of them. Our packages are then found whatever the current folder holds, and the user's
modules as always. In a clone (`pip install -e .`) the folders lie at its top, and that place goes first.

The top of this file imports nothing of the project: until a command starts, the name `models` may be the user's.
"""

import importlib
import sys
from pathlib import Path

NAMES = ("algorithms", "conf", "data", "models", "runner")
"""The folders of the project that are imported by these names."""
_HERE = Path(__file__).resolve().parent
# `runner` lies in this package only in a wheel; in a clone this file is at runner/cli/entry/dcrun.
ROOT = _HERE if (_HERE / "runner").is_dir() else _HERE.parents[3]
"""The folder that holds them: this package in a wheel, the top of a clone."""


def main() -> int:
    """Run the command `dcrun` and end the process; return an exit code if it cannot begin."""
    return _start("dcrun", "runner.cli.main")


def report() -> int:
    """Run the command `dcreport`, as `main` does."""
    return _start("dcreport", "runner.cli.dcreport")


def fit() -> int:
    """Run the command `dcrun-fit`, as `main` does."""
    return _start("dcrun-fit", "runner.cli.dcrun_fit")


def check() -> int:
    """Run the command `dcrun-check`, as `main` does."""
    return _start("dcrun-check", "runner.cli.dcrun_check")


def _start(command: str, module: str) -> int:
    """Make the project's folders importable, call `main` of one of its modules, and end the process.

    Returns:
        2, after one line, if a module of the user's is loaded already under a name of ours; else nothing returns.
    """
    for name in NAMES:
        places = _places(name)
        # Loaded before: no order of the path helps, since Python looks into `sys.modules` first.
        if places and not any(place.is_relative_to(ROOT) for place in places):
            what = f"{name} is dcrun's ({ROOT / name}), and yours ({places[0]}) has the same name and was loaded before"
            print(f"{command}: {what}; rename yours", file=sys.stderr)
            return 2
    # First, not last: the current folder may have a `data` or `models`.
    sys.path.insert(0, str(ROOT))
    code = importlib.import_module(module).main()
    return importlib.import_module("runner.config.process_end").end_process(code)


def _places(name: str) -> list[Path]:
    """Return the folders of a loaded module; a package without `__init__.py` may lie in several."""
    module = sys.modules.get(name)
    # A missing module is None here, and has neither.
    found = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return [Path(place).resolve() for place in found if place]
