"""Facts about the machine and the programs, for `summary.json`: a reader needs them to judge or repeat a result."""

import importlib.metadata
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from runner.config.resources import cores
from runner.run_folder.git_commit import git_commit


def facts(device: torch.device | str) -> dict[str, Any]:
    """Return what `summary.json` says about the machine of a run.

    Returns:
        `versions` (see `versions`), `isa` (the instruction set that torch's CPU kernels use, as 'AVX512'), `cpu`
        (model), `cores` (usable by this process), `threads` (of torch's CPU kernels in this process), `device` ('cpu'
        or 'cuda:0'), `device_name` (name of the accelerator, or of the CPU), `git_commit` (see `git_commit`).
    """
    device = torch.device(device)
    cpu = cpu_model()
    return {
        "versions": versions(device),
        # The bits of a result depend on it: other instruction sets add up in another order.
        "isa": torch.backends.cpu.get_cpu_capability(),
        "cpu": cpu,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "git_commit": git_commit(),
    }


def versions(device: torch.device | str = "cpu") -> dict[str, str | None]:
    """Return the versions of what computes the result, None if not installed; CUDA's only on a CUDA device."""
    found: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("torchvision", "numpy", "hydra-core", "dcrun"):
        try:
            found[package.removesuffix("-core")] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package.removesuffix("-core")] = None
    if torch.device(device).type == "cuda":
        found["cuda"] = torch.version.cuda
    return found


def cpu_model() -> str:
    """Return the processor's name if the system gives one, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def peak_memory_bytes(device: torch.device | str = "cpu") -> int:
    """Return the most memory this process has held so far, in bytes.

    On a CUDA device this is what torch's allocator held there, elsewhere the resident memory of the process (with code
    and libraries). On processes each worker has its own value.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # VmHWM comes before ru_maxrss: a process inherits the ru_maxrss of the (larger) process that started it.
    if (peak := _status_bytes("VmHWM")) is not None:
        return peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB.
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory_bytes() -> int:
    """Return the memory that this process holds now, in bytes; the most it has held where the system does not say."""
    resident = _status_bytes("VmRSS")
    return peak_memory_bytes() if resident is None else resident


def _status_bytes(name: str) -> int | None:
    """Return a size from Linux' description of this process; None if there is none."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
