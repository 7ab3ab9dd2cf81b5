"""A CPU double of what brings tensors between a GPU and the memory of processes: copies that are done late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.base import Message
from runner.gradients.oracle import NetworkOracle
from runner.simulated.arena import Arena
from runner.train import build, compute, executors
from tests.graphs import CpuGraphs


class LateTransfers:
    """Transfers of a process with tensors of its own, see `runner.simulated.transfers.PinnedTransfers`.

    What is shared holds junk until the copies are waited for. What is fetched is there at once for whoever computes on
    the same device, but its source must stay as it is until then.
    """

    in_place = False

    def __init__(self) -> None:
        self.attached: list[Arena] = []
        self.closed = False
        # By the address in the shared memory.
        self._begun: dict[int, Callable[[], object]] = {}

    @property
    def pending(self) -> int:
        """Number of copies that nobody has waited for."""
        return len(self._begun)

    def attach(self, arena: Arena) -> None:
        assert not self.attached
        self.attached.append(arena)

    def share(self, own: Message, shared: Message) -> None:
        for name, tensor in own.items():
            assert tensor.shape == shared[name].shape
            assert not tensor.numel() or (self._holds(shared[name]) and not self._holds(tensor))
            # Copies of one process are made in turn, and so is what it computes: as the tensor is now.
            self._done(shared[name].data_ptr())
            self._begun[shared[name].data_ptr()] = _later(shared[name], tensor.clone())
            _bytes(shared[name]).fill_(255)

    def fetch(self, shared: Message) -> Message:
        return {name: self._watched(tensor).clone() for name, tensor in shared.items()}

    def fetch_into(self, shared: Message, own: Message) -> None:
        for name, tensor in shared.items():
            own[name].copy_(self._watched(tensor))

    def finish(self) -> None:
        for address in list(self._begun):
            self._done(address)

    def close(self) -> None:
        assert not self.closed
        self.closed = True

    def _holds(self, tensor: Tensor) -> bool:
        [arena] = self.attached
        return arena.place_of(tensor) is not None

    def _watched(self, source: Tensor) -> Tensor:
        assert not source.numel() or self._holds(source)
        before = source.clone()

        def unchanged() -> None:
            assert torch.equal(_bytes(source), _bytes(before)), "overwritten while it was being copied"

        self._begun[source.data_ptr()] = unchanged
        return source

    def _done(self, address: int) -> None:
        self._begun.pop(address, lambda: None)()


def _later(place: Tensor, value: Tensor) -> Callable[[], object]:
    return lambda: place.copy_(value)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def compute_late(monkeypatch: pytest.MonkeyPatch) -> list[LateTransfers]:
    """Let a test's runs and their compute processes work as on GPUs; return the transfers that they use."""
    made: list[LateTransfers] = []

    def late(device: torch.device) -> LateTransfers:
        made.append(LateTransfers())
        return made[-1]

    def captured(*given: Any, **options: Any) -> NetworkOracle:
        return NetworkOracle(*given, **{**options, "graphs": CpuGraphs()})

    for module in (compute, executors):
        monkeypatch.setattr(module, "transfers_on", late)
    monkeypatch.setattr(build, "NetworkOracle", captured)
    return made
