"""The small server process from which ranks are forked: it has imported what they need, torch above all, once."""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext


def forkserver_context(module: str) -> ForkServerContext:
    """Return a context whose processes start with `module` imported.

    The server is a Python of its own, which would search the current folder first, where a `data/` or `models/` of the
    user's may lie, and would not find the packages of an installed dcrun: what it imports is looked for where this
    process looks. (Each forked process then gets this one's `sys.path` anyway; what the server imported stays.)
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    # For the fork server alone, which reads them when it starts: what else this process starts keeps the user's.
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONSAFEPATH")}
    os.environ |= {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"}
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return context
