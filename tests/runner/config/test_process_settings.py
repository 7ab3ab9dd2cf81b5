import os
import subprocess
import sys

import pytest

from runner.config.allocator import SETTINGS
from runner.config.errors import InputError
from runner.config.process_settings import check_threads

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
PROGRAM = """
import os
import runner, runner.config
before = [os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")]
import runner.config.process_settings as settings
kept = []
settings.keep_freed_memory = lambda: kept.append(True)
assert not kept
settings.set_process()
import sys
print(before, [os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")], kept, "torch" in sys.modules)
"""


def told(**given: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in (*WAITING, *SETTINGS)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment | given, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_only_the_call_sets_anything():
    assert told() == "[None, None] ['passive', '2000'] [True] False"


def test_what_the_environment_says_stays():
    assert told(OMP_WAIT_POLICY="active") == "['active', None] ['active', '2000'] [True] False"


@pytest.mark.parametrize("text", ["0", "abc", "-1", "", "1.5", "2,0", "99999999999", "1;2", "٣"])
def test_threads_that_are_no_number_are_refused(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    with pytest.raises(
        InputError, match=rf"^OMP_NUM_THREADS={text}: is not a number of threads; allowed: whole numbers"
    ):
        check_threads()


@pytest.mark.parametrize("text", ["1", "16", " 4 ", "4,2", "007", None])
def test_threads_that_openmp_takes_are_taken(text: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if text is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    check_threads()
