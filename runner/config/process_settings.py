"""How a process of dcrun waits and keeps memory. Whatever starts one calls this first, before PyTorch is loaded."""

import os

from runner.config.allocator import keep_freed_memory


def set_process() -> None:
    """Set how PyTorch's CPU threads wait for each other, and have the C library keep the memory that a step frees.

    Threads spin for some microseconds, then sleep. OpenMP reads that from the environment when torch is loaded; child
    processes inherit it. On a machine that other programs use too, threads that go on spinning wait for time slices
    that they take from each other: two threads on two busy cores ran ResNet-20 on digits at 23 samples/s spinning, 291
    sleeping. Threads that sleep at once are woken for every operator: server updates on an idle machine took three
    times as long.

    What the environment says already stays. The allocator's settings are not inherited: each process needs the call.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    keep_freed_memory()
