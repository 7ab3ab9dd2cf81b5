"""Which commit the code is of. Imports no torch: `dcrun --version` says it at once."""

import os
import subprocess
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("algorithms", "models", "data", "runner", "conf", "pyproject.toml")
_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


def git_commit(root: Path = _ROOT) -> str | None:
    """Return the commit of the git checkout that contains the code.

    Args:
        root: the folder above the packages.

    Returns:
        The full hash, with '-dirty' if code or configuration differs from it (new files too). None outside a checkout,
        without git, or if the checkout is of something else (dcrun is installed inside a project of the user's).
    """
    commit = _git(root, "rev-parse", "HEAD")
    # A checkout that does not track this code is another project's, into which dcrun was installed.
    if not commit or not _git(root, "ls-files", "--", "runner"):
        return None
    # Of the code alone: a run's own outputs below the checkout do not make it another program.
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *_CODE)
    return commit if changes == "" else f"{commit}-dirty"


def _git(root: Path, *arguments: str) -> str | None:
    # Inside a git hook these variables name the hook's repository, which need not be this one.
    environment = {key: value for key, value in os.environ.items() if key not in _HOOK}
    # Otherwise `status` takes the lock of the index, and a `git commit` that the user makes at that moment fails.
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            # A repository on a slow network drive must not hold up a run.
            timeout=10,
            env=environment,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
