"""Measures the lower bounds of a training step: launching its kernels, and moving its bytes at the speed of a copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NODES = 1000
"""Kernels in the graph that is timed."""


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of one repetition, host and device together."""
    for _ in range(3):
        work()
    finish(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    finish(device)
    return (time.perf_counter() - begin) / repeats


def kernels(step: Callable[[], None], device: torch.device) -> int:
    """How many kernels and copies a step launches on a GPU, as the profiler sees them."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    step()
    finish(device)
    with torch.profiler.profile(activities=kinds) as profile:
        step()
        finish(device)
    return sum(str(event.device_type) == "DeviceType.CUDA" for event in profile.events() or [])


def bytes_of(module: nn.Module, inputs: Tensor) -> int:
    """Bytes that a training step must move: of convolutions and linear layers, all between them fused into them.

    Forward reads input and weights and writes the output; backward reads the output's gradient, the input and the
    weights, and writes gradients of input and weights.
    """
    total = 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weights = sum(p.numel() for p in layer.parameters())
        total += 4 * (3 * given[0].numel() + 2 * output.numel() + 3 * weights)

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        module.eval()(inputs)
    for handle in handles:
        handle.remove()
    return total


def measure(device: torch.device, *, launches: int, moved: int, weights: int, repeats: int) -> dict[str, Any]:
    """Measure the smallest times in which a step's kernels could be launched and its bytes moved.

    Args:
        device: on which.
        launches: kernels of a step.
        moved: bytes that a step must move.
        weights: elements of the vector whose copy gives the speed of memory.
        repeats: copies of it.
    """
    one = torch.zeros(1, device=device)
    launch = node = seconds_of(lambda: one.add_(1), device, NODES)
    if device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(NODES):
                one.add_(1)
        node = seconds_of(graph.replay, device, repeats) / NODES
    a, b = torch.randn(2, weights, device=device)
    bandwidth = 8 * weights / seconds_of(lambda: b.copy_(a), device, repeats)
    return {
        "kernels_of_an_eager_step": launches,
        "seconds_of_a_launch": launch,
        "seconds_of_a_kernel_in_a_graph": node,
        "copy_bytes_per_second": bandwidth,
        "bytes_that_must_move": moved,
        "bounds_seconds": {
            "launches": launches * launch,
            "launches in a graph": launches * node,
            "bytes": moved / bandwidth,
        },
    }
