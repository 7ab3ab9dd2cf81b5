import os
import signal
import subprocess
import sys

from runner.config.installation import ROOT
from runner.sweeps import lifeline
from runner.sweeps.lifeline import Lifeline

JOB = """
import os, signal, sys, time
from runner.sweeps import lifeline
lifeline.hold()
assert lifeline.PIPE not in os.environ
print("holds", flush=True)
time.sleep(60)
"""


def test_job_is_stopped_when_its_sweep_ends():
    line = Lifeline()
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | line.environment()
    command = [sys.executable, "-c", JOB]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, pass_fds=[line.end]) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"holds\n"
        assert job.poll() is None
        line.close()
        assert job.wait(30) == -signal.SIGTERM


def test_other_processes_hold_nothing():
    assert lifeline.PIPE not in os.environ
    lifeline.hold()
