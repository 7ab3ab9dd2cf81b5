import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.config.installation import ROOT

PROGRAM = """
import os, sys

def tell(pipe):
    import data
    imported = {"torch", "runner.processes.server"} <= set(sys.modules)
    pipe.send((AT_START, imported, data.__file__))

AT_START = "torch" in sys.modules

if __name__ == "__main__":
    sys.path.insert(0, ROOT)
    from runner.config.forkserver import forkserver_context
    before = dict(os.environ)
    context = forkserver_context("runner.processes.server")
    assert dict(os.environ) == before
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=tell, args=(theirs,))
    process.start()
    print(*ours.recv())
    process.join()
"""


def test_forked_processes_have_imported_what_is_ours(tmp_path: Path):
    """The current folder has modules of our names, and nothing but this program's own path leads to ours."""
    for name in ("data", "runner", "algorithms"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current folder')\n")
    (tmp_path / "program.py").write_text(PROGRAM.replace("ROOT", repr(str(ROOT))))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == (f"True True {ROOT / 'data' / '__init__.py'}\n", "")


SIGNALLED = """
import os, signal, sys, time
from multiprocessing import forkserver
from runner.config.forkserver import forkserver_context

def tell(pipe):
    pipe.send([signal.getsignal(number) for number in NUMBERS])

NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

if __name__ == "__main__":
    context = forkserver_context("runner.config.signals")
    ours, theirs = context.Pipe(duplex=False)
    first = context.Process(target=tell, args=(theirs,))
    first.start()
    handlers = ours.recv()
    server = forkserver._forkserver._forkserver_pid
    for number in (*NUMBERS, signal.SIGHUP):
        os.kill(server, number)
    time.sleep(0.2)
    context.Process(target=tell, args=(theirs,)).start()
    print(handlers == ours.recv() == [signal.SIG_DFL] * 3, server == forkserver._forkserver._forkserver_pid)
"""


def test_signals_to_every_process_leave_the_server(tmp_path: Path):
    """The ranks end with it; they themselves do with a signal what they like."""
    (tmp_path / "program.py").write_text(SIGNALLED)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("True True\n", "")


FORKED = """
import os, signal, sys
from multiprocessing import forkserver
from runner.config.forkserver import fork_server, forkserver_context

def tell(pipe):
    pipe.send((hasattr(sys, "imported_before"), os.getppid(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL))

if __name__ == "__main__":
    sys.imported_before = True
    fork_server()
    context = forkserver_context("runner.config.signals")
    server = forkserver._forkserver._forkserver_pid
    for _ in range(2):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=tell, args=(theirs,))
        process.start()
        imported, parent, default = ours.recv()
        process.join()
        print(imported, parent == server, default, process.exitcode)
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there the server is started anew")
def test_server_of_a_fork_has_imported_all(tmp_path: Path):
    (tmp_path / "program.py").write_text(FORKED)
    command = [sys.executable, str(tmp_path / "program.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    # The server holds the output too: that it is at its end says that the server ended with the program.
    assert (done.stdout.splitlines(), done.stderr) == (["True True True 0"] * 2, "")
