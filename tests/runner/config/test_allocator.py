import os
import platform
import subprocess
import sys

import pytest

from runner.config.allocator import LARGEST, SETTINGS

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")

SET = "from runner.config.process_settings import set_process; set_process()"
HELD = f"""
import ctypes
{{before}}

class Info(ctypes.Structure):  # of mallinfo2, see its manual page
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]

def mapped(size):
    before = libc.mallinfo2().hblks
    block = libc.malloc(ctypes.c_size_t(size))
    found = libc.mallinfo2().hblks - before
    libc.free(block)
    return found

other = libc.mallinfo2().hblks
large = mapped({LARGEST} + 1)
blocks = [libc.malloc(ctypes.c_size_t({LARGEST} - 2**20)) for _ in range(6)]
own = libc.mallinfo2().hblks - other
for block in blocks:
    libc.free(block)
print(large, own, libc.mallinfo2().arena >= 6 * ({LARGEST} - 2**20))
"""
"""Is a large block mapped by itself; how many of six smaller ones are; do these stay once freed?"""

STEPS = """
import resource
{before}
import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
net = nn.Sequential(*[
    nn.Sequential(nn.Conv2d(16 if i else 3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()) for i in range(8)
])
images = torch.randn(64, 3, 32, 32)
for step in range(8):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    net(images).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""How many pages four training steps were handed out by the system, once the heap has its size."""


def run(program: str, settings: dict[str, str]) -> str:
    """What a program prints in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in SETTINGS} | settings
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_freed_blocks_stay_with_the_process():
    assert run(HELD.format(before=SET), {}) == "1 0 True"
    assert run(HELD.format(before=""), {}) != "1 0 True"


@pytest.mark.slow
def test_training_steps_take_few_new_pages():
    # Not none: a system that is short of memory takes pages back by itself.
    kept, given_back = (int(run(STEPS.format(before=before), {})) for before in (SET, ""))
    assert kept < given_back / 3


def test_settings_from_outside_decide():
    program = "from runner.config.allocator import keep_freed_memory; print(keep_freed_memory())"
    given = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"} | dict.fromkeys(SETTINGS[1:], "131072")
    said = {name: run(program, {name: value}) for name, value in given.items()}
    assert said == dict.fromkeys(SETTINGS, "False")
    assert run(program, {}) == "True"
