"""Builds runs from their configuration and executes them, on a simulated cluster or on real processes.

Importing this package sets how PyTorch's CPU threads wait for each other, which OpenMP reads when torch is loaded: they
sleep instead of spinning. On a machine that other programs use too, spinning threads wait for time slices that they
take from each other: two threads on two busy cores ran ResNet-20 on digits at 23 samples/s spinning, 291 sleeping.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
