import os
import subprocess
import sys

from runner.config.allocator import SETTINGS

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
