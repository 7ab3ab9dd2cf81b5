"""Sets how a process of dcrun waits and keeps memory. Each process calls this before it loads PyTorch."""

import os
import re

from runner.config.allocator import keep_freed_memory
from runner.config.errors import InputError


def set_process() -> None:
    """Set how PyTorch's CPU threads wait for each other, and make the C library keep the memory that a step frees.

    Threads spin for some microseconds, then sleep. Why not spin longer: on a machine that other programs use too,
    spinning threads take from each other the time slices that they wait for. Two threads on two busy cores ran
    ResNet-20 on digits at 23 samples/s spinning and at 291 sleeping. Why not sleep at once: the threads would be woken
    for every operator, and server updates on an idle machine took three times as long.

    OpenMP reads the setting from the environment when torch is loaded, and child processes inherit it. Values that the
    environment has already are kept. The allocator's settings are not inherited: each process needs this call.
    """
    # GNU's OpenMP reads both: without the count "passive" means to sleep at once.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    keep_freed_memory()


def check_threads() -> None:
    """Refuse an OMP_NUM_THREADS that is not a number of threads, or a list of them.

    OpenMP says in several lines that it does not take such a value and uses all cores, and with another number of
    threads a run has other bits.

    Raises:
        InputError: naming the variable.
    """
    text = os.environ.get("OMP_NUM_THREADS", "1")
    if not re.fullmatch(r"\s*0*[1-9][0-9]{0,5}\s*(,\s*0*[1-9][0-9]{0,5}\s*)*", text):
        what, allowed = "is not a number of threads", "whole numbers from 1 to 999999, or unset OMP_NUM_THREADS"
        raise InputError.of("OMP_NUM_THREADS", text, what, allowed)
