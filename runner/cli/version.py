"""The line of `--version`, of `dcrun` and of `dcreport`."""

import platform
from importlib.metadata import version

from runner.run_folder.git_commit import git_commit


def line() -> str:
    """Return the versions of this package, of PyTorch and of Python, and the commit in a checkout."""
    commit = git_commit()
    parts = [f"dcrun {version('dcrun')}", f"torch {version('torch')}", f"Python {platform.python_version()}"]
    return ", ".join([*parts, *([] if commit is None else [f"commit {commit}"])])
