import subprocess
import sys
from typing import Any

from runner.config.installation import ROOT

PROGRAM = """
import atexit, ctypes, threading, time
from runner.config.process_end import end_process

class Module:
    def __del__(self):
        print("taken down")

kept = Module()

def late():
    time.sleep(0.1)
    print("a thread")

atexit.register(print, "registered")
threading.Thread(target=late).start()
ctypes.CDLL(None).puts(b"from C")
print("a line", end=" ")
end_process(3)
"""


def run(program: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, timeout=60, check=False, **streams)


def test_all_is_done_and_nothing_taken_down():
    done = run(PROGRAM, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (3, "")
    assert sorted(done.stdout.splitlines()) == ["a line a thread", "from C", "registered"]


def test_output_that_nobody_takes_is_told_as_by_python():
    told = []
    for end in ("end_process(0)", "sys.exit(0)"):
        program = f"import sys; from runner.config.process_end import end_process; print('lost'); {end}"
        with open("/dev/full", "wb") as full:
            done = run(program, stdout=full.fileno(), stderr=subprocess.PIPE)
        told.append((done.returncode, done.stderr.splitlines()[-1:]))
    assert told[0] == told[1]
    assert told[0][0] != 0
