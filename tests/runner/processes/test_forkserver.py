import os
import subprocess
import sys
from pathlib import Path

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
    from runner.processes.forkserver import forkserver_context
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
