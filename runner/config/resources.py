"""What of the machine this process may use: cores, memory, GPUs. Nothing here imports torch.

In a container, under `taskset` or in a job of a scheduler that is less than the machine has.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

CORES = "DCRUN_CORES"
"""Environment variable by which a job of a sweep knows how many cores are its own, if others run beside it."""
_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cores() -> int:
    """Return how many processor cores this process may use."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups("cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if (both := _text(group / "cpu.max").split()) and both[0].isdigit():
            quota, period = int(both[0]), int(both[1])
        # A container with half a core has one, which it may use half of the time.
        if quota and period:
            found = min(found, max(1, math.floor(quota / period)))
    return found


def own_cores() -> int:
    """Return how many cores a run may count as its own: all, or those that its sweep gave it."""
    return min(cores(), int(os.environ.get(CORES) or cores()))


def free_memory() -> int | None:
    """Return how many bytes this process and its children can still take; None if the system does not say."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text(Path("/proc/meminfo")), re.MULTILINE)
    if found is None:
        return None
    free = 1024 * int(found[1])
    for group in _control_groups("memory"):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            if limit := _number(group / most):
                free = min(free, limit - (_number(group / used) or 0))
    return max(free, 0)


def gpus(devices: Path = Path("/dev")) -> int:
    """Return how many GPUs this process may use, as far as the system's devices and CUDA_VISIBLE_DEVICES tell.

    Args:
        devices: the folder of the system's devices.
    """
    found = sum(re.fullmatch(r"nvidia\d+", path.name) is not None for path in devices.glob("nvidia*"))
    # Those of AMD, and those under WSL, have one device for all.
    found = found or int((devices / "kfd").exists() or (devices / "dxg").exists())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not found:
        return found
    named = [name.strip() for name in visible.split(",")]
    # As CUDA reads it: what follows a number that is none does not count.
    return next((place for place, name in enumerate(named) if name in ("", "-1")), len(named))


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, from its own to the outermost."""
    for line in _text(_OWN).splitlines():
        _, controllers, own = line.split(":", 2)
        # The second version has one tree for all controllers, and no name; the first has a tree for each.
        if controllers and controller not in controllers.split(","):
            continue
        root = _GROUPS / controllers if controllers else _GROUPS
        folder = root / own.lstrip("/")
        yield from (place for place in (folder, *folder.parents) if place.is_relative_to(root))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None
