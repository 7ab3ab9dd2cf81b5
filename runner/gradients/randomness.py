"""Torch's own generators within a step: what a network or a method draws is a function of the run's seed and the step.

`nn.Dropout`, `functional.dropout`, the dropout of `scaled_dot_product_attention`, `torch.rand` in a user's module: all
draw from the default generator of a device. Its state is the history of the process: a run that goes on in another one,
or that other workers compute, would draw other numbers without a word. So each step seeds it by a name of its own.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from runner.config.seeds import derive

MASK = 2**64 - 1
"""Seeds of generators are numbers of 64 bits."""
ODD = 0x9E3779B97F4A7C15
"""The multiplier of splitmix64: odd, so that multiplying modulo 2^64 loses nothing."""


def piece_name(ids: Tensor, piece: int, size: int | None) -> tuple[int, ...]:
    """Return what the streams of one piece of a batch are called besides the batch's number.

    Empty for a whole batch and for the first worker's share: their streams are called by the number alone.

    Args:
        ids: sample numbers of the piece.
        piece: which worker's share it is of, see `algorithms.base.Batch`.
        size: number of samples of that share; None for those of `ids`.
    """
    name = (piece,) if piece else ()
    if size is None or ids.numel() == size:
        return name
    # Cut by the method itself. Where it cut is not known, but no two pieces of a batch have the same samples. On a GPU
    # the host waits for the numbers: only methods that cut batches pay for that.
    return (*name, *ids.tolist())


def default_generators(device: torch.device) -> list[torch.Generator]:
    """Return the generators that a step on `device` may draw from: the CPU's, and on a GPU that one's."""
    if device.type != "cuda":
        return [torch.default_generator]
    return [torch.default_generator, torch.cuda.default_generators[device.index]]


def seed_generators(device: torch.device, seed: int, call: str, *numbers: int) -> None:
    """Seed what a method may draw from, in one of its calls, by the run's seed, the call's name and its numbers.

    Called some times for every update, so it costs less than `derive`: a hash is made for each name alone.
    """
    value = _call_seed(seed, call)
    for number in numbers:
        # A bijection in each number: calls that differ in one alone never share a seed.
        value = ((value ^ (number & MASK)) * ODD) & MASK
        value ^= value >> 32
    _seed(default_generators(device), value)


@functools.cache
def _call_seed(seed: int, call: str) -> int:
    return derive(seed, "call", call)


def _seed(generators: list[torch.Generator], value: int) -> None:
    # Not by `torch.manual_seed`: that seeds every GPU of the machine, and before CUDA has started notes a stack trace
    # each time, which costs as much as a small step.
    for generator in generators:
        generator.manual_seed(value)


@contextmanager
def seeded(device: torch.device, seed: int, *stream: int | str) -> Iterator[None]:
    """Seed the generators for the block inside, and leave them as they were."""
    generators = default_generators(device)
    before = [generator.get_state() for generator in generators]
    _seed(generators, derive(seed, *stream))
    try:
        yield
    finally:
        # Whoever asked for the gradient may be drawing numbers of its own: a second gradient must not repeat those.
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


class DrawWatch:
    """Whether anything is drawn on a device from here on; asks the host alone, so no GPU is waited for.

    Args:
        device: where the step is made.
    """

    def __init__(self, device: torch.device) -> None:
        self._generators = default_generators(device)
        self._before = self._states()

    def drawn(self) -> bool:
        """Return whether a generator has moved since the watch began."""
        return self._states() != self._before

    def _states(self) -> list[bytes]:
        # The state as bytes: a CPU's generator has no counter that could be asked.
        states = [generator.get_state() for generator in self._generators]
        # A GPU's generator too has its state in CPU memory.
        return [ctypes.string_at(state.data_ptr(), state.numel()) for state in states]
