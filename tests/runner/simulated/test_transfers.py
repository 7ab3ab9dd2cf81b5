import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from algorithms.base import Fields, Message
from runner.simulated import transfers
from runner.simulated.arena import Arena, NotShareable, lay_out
from runner.simulated.compute_pool import READY
from runner.simulated.compute_process import DONE, EMPTY, STATISTICS, Task, do_tasks, result_fields
from runner.simulated.transfers import InPlace, PinnedTransfers, transfers_on
from tests.transfers import LateTransfers

CPU = torch.device("cpu")


class Driver:
    """What of CUDA the transfers call, as a list of what was called.

    Args:
        error: what registering memory answers, and unregistering it.
    """

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.calls: list[Any] = []

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:  # noqa: N802 (CUDA's name)
        self.calls.append(("register", address, nbytes, flags))
        return self.error

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802 (CUDA's name)
        self.calls.append(("unregister", address))
        return self.error

    @contextmanager
    def watching(self) -> Iterator[None]:
        """List the copies that are begun inside, too."""
        with _Copies(self.calls):
            yield


class _Copies(TorchFunctionMode):
    def __init__(self, calls: list[Any]) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.copy_, Tensor.to):
            self.calls.append((func.__name__, (kwargs or {}).get("non_blocking", False)))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    event = SimpleNamespace(
        record=lambda stream: made.calls.append(("record", stream)),
        synchronize=lambda: made.calls.append("synchronize"),
    )
    fake = SimpleNamespace(Event=lambda: event, current_stream=lambda device: f"on {device}", cudart=lambda: made)
    monkeypatch.setattr(transfers.torch, "cuda", fake)
    return made


def test_memory_is_locked_once_and_unlocked(driver: Driver):
    arena, pinned = Arena(1000), PinnedTransfers(CPU)
    pinned.attach(arena)
    assert driver.calls == [("register", arena.tensor(lay_out({"w": 1}, 0)["w"]).data_ptr(), 1000, 1)]
    driver.calls.clear()
    pinned.close()
    pinned.close()
    assert driver.calls == [("record", "on cpu"), "synchronize", ("unregister", arena.address)]


def test_memory_that_cannot_be_locked_is_refused(driver: Driver):
    driver.error = 801
    pinned = PinnedTransfers(CPU)
    with pytest.raises(NotShareable, match=r"^run.compute_processes: 3 MiB .* \(CUDA error 801\); allowed: 1$"):
        pinned.attach(Arena(3 * 2**20))
    pinned.close()
    assert [call[0] for call in driver.calls] == ["register"], "what is not locked is not unlocked"


def test_memory_that_stays_locked_is_said(driver: Driver, caplog: pytest.LogCaptureFixture):
    """And does not make a run fail that has come to its end."""
    pinned = PinnedTransfers(CPU)
    pinned.attach(Arena(64))
    driver.error = 1
    pinned.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "could not be unlocked (CUDA error 1)" in caplog.text


def test_copies_are_queued_and_waited_for_once(driver: Driver):
    pinned, shared = PinnedTransfers(CPU), {"g": torch.zeros(2), "rest": torch.zeros(1)}
    own = {"g": torch.ones(2)}
    with driver.watching():
        pinned.share(own, shared)
        fetched = pinned.fetch(shared)
        pinned.fetch_into({"g": torch.full((2,), 3.0)}, own)
        pinned.finish()
    copies = [("copy_", True), ("to", True), ("to", True), ("copy_", True)]
    assert driver.calls == [*copies, ("record", "on cpu"), "synchronize"]
    assert [tensor.tolist() for tensor in (fetched["g"], fetched["rest"], own["g"])] == [[1, 1], [0], [3, 3]]


def test_cpus_share_in_place():
    given = transfers_on(CPU)
    assert isinstance(given, InPlace)
    shared = {"g": torch.zeros(2), "rest": torch.zeros(1)}
    given.share({"g": torch.ones(2)}, shared)
    assert given.fetch(shared) is shared
    assert [tensor.tolist() for tensor in shared.values()] == [[1, 1], [0]]


class Ones:
    """Tasks with a result of ones, whose copy to the shared memory is late."""

    def __init__(self, plain: dict[str, Any], number: int, arena: Arena, places: Any) -> None:
        replica = SimpleNamespace(statistics=torch.zeros(1), weights=torch.zeros(1))
        self.oracle: Any = SimpleNamespace(replica=replica, counts=None)
        self.transfers = plain["transfers"]
        self.transfers.attach(arena)

    def fields(self, call: int, numbers: Any) -> Fields:
        return {"g": 2}

    def perform(self, task: Task) -> Message | None:
        return None if task.call == READY else {"g": torch.ones(2)}


class Pipe:
    """A process' end of a pipe; before an answer leaves, all copies must have been waited for."""

    def __init__(self, pipe: Any, late: LateTransfers) -> None:
        self.pipe, self.late = pipe, late
        self.recv_bytes = pipe.recv_bytes

    def send_bytes(self, answer: bytes) -> None:
        assert not self.late.pending
        self.pipe.send_bytes(answer)


def test_an_answer_leaves_when_its_result_is_there():
    late, arena = LateTransfers(), Arena(256)
    ours, theirs = multiprocessing.Pipe()
    pipe: Any = Pipe(theirs, late)
    process = threading.Thread(target=do_tasks, args=(pipe, Ones, {"transfers": late}, 0, arena, None))
    process.start()
    ours.send_bytes(Task(READY).pack())
    assert ours.recv_bytes()[:1] == EMPTY
    ours.send_bytes(Task(READY + 1, place=0).pack())
    assert ours.poll(10)
    assert ours.recv_bytes()[:1] == DONE
    found = arena.tensors(lay_out(result_fields({"g": 2}, 1), 0))
    assert (found["g"].tolist(), found[STATISTICS].tolist()) == ([1, 1], [0])
    ours.close()
    process.join()
    assert late.closed, "memory is unlocked before it goes"
