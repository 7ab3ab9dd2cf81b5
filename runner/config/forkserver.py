"""The small server process from which a run's processes are forked: it has imported what they need, torch above all.

The server imports this module too, first of all, to leave signals to the ranks: they end with it.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from multiprocessing import connection, forkserver, util
from multiprocessing.context import ForkServerContext
from typing import Any, NoReturn

from runner.config import collector, own_code, signals
from runner.config.signals import STOPPING

GRACE_SECONDS = 2.0
"""Seconds between the end of the launcher and that of its fork server, in which the ranks end by themselves."""

_SHIELDED = "DCRUN_FORK_SERVER"
"""Environment variable by which the server knows that it is the one."""


def forkserver_context(*modules: str, told: Mapping[str, str] | None = None) -> ForkServerContext:
    """Return a context whose processes start with `modules` imported.

    Args:
        modules: what the server imports when it starts.
        told: environment variables that it starts with, for these modules.

    The server is a Python of its own, which would search the current folder first, where a `data/` or `models/` of the
    user's may lie, and would not find the packages of an installed dcrun: what it imports is looked for where this
    process looks. (Each forked process then gets this one's `sys.path` anyway; what the server imported stays.)
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *modules])
    # For the fork server alone, which reads them when it starts: what else this process starts keeps the user's.
    own = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1", _SHIELDED: "1", **(told or {})}
    before = {name: os.environ.get(name) for name in own}
    os.environ |= own
    try:
        # Now, while the environment is set: started by the first process, the server would read whatever is there then.
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return context


def fork_server() -> None:
    """Fork this process' fork server from this process, so that it need not import again what is imported here.

    Call it where there are no threads yet and nothing is computed: a forked copy of a thread pool hangs, and a lock
    that another thread holds stays locked. So it is for a process at its beginning.
    """
    # Any: these are the fields that `ensure_running` sets, which has no other way than to start a fresh Python.
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    if hasattr(server, "_forkserver_authkey"):
        # Python 3.14 hands a key to the server that it starts: there it is started anew.
        return
    with socket.socket(socket.AF_UNIX) as listener:
        address: Any = connection.arbitrary_address("AF_UNIX")  # type: ignore[attr-defined]
        listener.bind(address)
        if not util.is_abstract_socket_namespace(address):  # type: ignore[attr-defined]
            os.chmod(address, 0o600)
        listener.listen()
        # The server ends when all ends of this pipe for writing are closed.
        alive_r, alive_w = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(alive_w)
            _serve(listener.detach(), alive_r)
        os.close(alive_r)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, alive_w, pid


def _serve(listener: int, alive: int) -> NoReturn:
    """Be a fork server to the end of this process."""
    try:
        _leave_signals_to_ranks()
        _end_with_launcher()
        forkserver.main(listener, alive, [])
    finally:
        # Nothing of the process that this one was forked from is to be ended here, as its temporary files.
        os._exit(0)


def _leave_signals_to_ranks() -> None:
    """Ignore what a scheduler or a closed terminal sends to every process; forked processes get it as before."""
    # Multiprocessing's own server ignores SIGINT, and gives a forked process what was set here: a Ctrl-C that comes
    # before the rank has begun then ends it, without the traceback of a KeyboardInterrupt.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    os.register_at_fork(after_in_child=restore)


def _end_with_launcher() -> None:
    """End this server, and so all ranks, some seconds after the process that started it; on Linux.

    The server would live as long as any rank does. A rank that runs ends by itself, and says so in the summary. One
    that is stopped cannot; the kernel kills it when the server, its parent, ends.
    """
    if sys.platform != "linux":
        return

    def end(number: int, frame: object) -> None:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            # Nobody is left to wait for. Who reads this server's output, as in `dcrun … | less`, waits for its end.
            os._exit(1)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    # A signal that nobody else sends.
    signal.signal(signal.SIGRTMIN, end)
    signals.send_at_parents_end(signal.SIGRTMIN)


if os.environ.pop(_SHIELDED, None):
    # What the server imports may be the user's, and so may what a forked process imports.
    own_code.install()
    collector.leave_to_forks()
    _leave_signals_to_ranks()
    _end_with_launcher()
