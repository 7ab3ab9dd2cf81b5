import heapq
import random
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from algorithms.base import Fields, Message
from runner.config.errors import InputError
from runner.simulated.arena import Arena
from runner.simulated.compute_pool import READY, ComputePool, PoolOptions, place_results
from runner.simulated.compute_process import Task
from runner.simulated.transfers import InPlace
from tests.compute import use_threads
from tests.transfers import LateTransfers

SQUARE, WRONG, BROKEN, NOTHING = range(READY + 1, READY + 5)
FIELDS: Fields = {"square": 1, "name": 2}


class Squares:
    """Squares numbers, and counts one sum for each of them; `places` says how long a task takes."""

    def __init__(self, plain: dict[str, Any], number: int, arena: Arena, places: Any) -> None:
        replica = SimpleNamespace(statistics=torch.zeros(1), weights=torch.zeros(1))
        self.oracle: Any = SimpleNamespace(replica=replica, counts=None)
        self.transfers: Any = InPlace()
        self.seconds = places or (lambda number: 0.0)

    def fields(self, call: int, numbers: Any) -> Fields:
        return FIELDS

    def perform(self, task: Task) -> Message | None:
        if task.call == WRONG:
            raise InputError("algorithm.key=1: wrong; allowed: 2")
        if task.call == BROKEN:
            raise ZeroDivisionError("broken")
        if task.call == READY:
            return None
        worker, number = task.numbers
        if task.call == NOTHING:
            self.oracle.replica.statistics.fill_(number)
            return None
        time.sleep(self.seconds(number))
        self.oracle.replica.statistics.fill_(number)
        self.oracle.counts += [
            (torch.tensor(0.1), torch.tensor(worker), number),
            (torch.tensor(0.2), torch.tensor(0), 0),
        ]
        return {"square": torch.tensor([number * 2.0]), "name": torch.tensor([worker, task.reals[0]])}


def started(monkeypatch: pytest.MonkeyPatch, count: int, seconds: Any = None) -> ComputePool:
    use_threads(monkeypatch)
    options = PoolOptions(count, Squares, {})
    *results, end = place_results(options, [FIELDS], 1, 0)
    assert len(results) == count + 1
    return ComputePool(options, arena=Arena(end), places=seconds, results=results, statistics=1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "workers"), [(2, 2), (2, 8), (3, 5), (5, 5)])
def test_any_clock_gets_its_results(seed: int, count: int, workers: int, monkeypatch: pytest.MonkeyPatch):
    """Workers that are a thousand times slower than others, tasks that must be done by one process, dropped ones."""
    draw = random.Random(seed)
    slow = {worker: draw.choice([1.0, 1.0, 30.0, 1000.0]) for worker in range(workers)}
    bound = {worker: worker % count if seed % 2 else None for worker in range(workers)}
    pool = started(monkeypatch, count, lambda number: 1e-4 * (number % 3))
    heap: list[tuple[float, int, int]] = []
    pool.order = lambda: (worker for _, worker, _ in sorted(heap))
    totals = torch.zeros(3, dtype=torch.float64)
    expected = torch.zeros(3, dtype=torch.float64)

    def submit(worker: int, now: float, number: int) -> None:
        heapq.heappush(heap, (now + slow[worker] * draw.random(), worker, number))
        pool.submit(worker, Task(SQUARE, (worker, number), (0.5,)), bound[worker])

    try:
        pool.wait_ready()
        for worker in range(workers):
            submit(worker, 0.0, worker)
        for number in range(workers, 60):
            now, worker, asked = heapq.heappop(heap)
            if draw.random() < 0.1:
                pool.drop(worker)
            else:
                result = pool.result(worker, FIELDS)
                assert result.message is not None
                assert result.message["square"].tolist() == [asked * 2.0]
                assert result.message["name"].tolist() == [worker, 0.5]
                assert result.statistics.tolist() == [asked]
                result.count(totals)
                for losses, errors, samples in ((0.1, worker, asked), (0.2, 0, 0)):
                    expected += torch.tensor([float(torch.tensor(losses)), errors, samples], dtype=torch.float64)
                pool.release(worker)
            submit(worker, now, number)
        assert totals.tolist() == expected.tolist(), "sums are added up one by one, in the order of events"
    finally:
        pool.close()


def test_results_are_begun_in_the_order_of_need(monkeypatch: pytest.MonkeyPatch):
    begun: list[int] = []

    def note(number: int) -> float:
        begun.append(number)
        return 0.05

    pool = started(monkeypatch, 1, note)
    try:
        pool.order = lambda: (2, 0, 1)
        # All are known before one begins: the first to come may be the last that is needed.
        for worker in range(3):
            pool.submit(worker, Task(SQUARE, (worker, worker), (0.0,)))
        for worker in (2, 0, 1):
            pool.result(worker, FIELDS)
            pool.release(worker)
        assert begun == [2, 0, 1]
    finally:
        pool.close()


def test_no_more_than_one_result_waits(monkeypatch: pytest.MonkeyPatch):
    """Nobody takes a result: two processes finish two at most, and leave room for one that is needed earlier."""
    begun: list[int] = []
    pool = started(monkeypatch, 2, lambda number: begun.append(number) or 0.0)
    try:
        for worker in range(6):
            pool.submit(worker, Task(SQUARE, (worker, worker), (0.0,)))
        pool.begin()
        time.sleep(0.2)
        pool.submit(6, Task(SQUARE, (6, 6), (0.0,)))
        pool.begin()
        time.sleep(0.2)
        assert sorted(begun) == [0, 1]
        pool.order = lambda: (6, 0, 1, 2, 3, 4, 5)
        result = pool.result(6, FIELDS).message
        assert result is not None
        assert result["name"].tolist() == [6, 0]
    finally:
        pool.close()


def test_a_dropped_task_keeps_its_place_to_the_end(monkeypatch: pytest.MonkeyPatch):
    """Its process writes there once more: nobody else may have the place before."""
    pool = started(monkeypatch, 2, lambda number: 0.3 if number == 7 else 0.0)
    try:
        pool.submit(0, Task(SQUARE, (0, 7), (0.0,)))
        pool.begin()
        pool.drop(0)
        pool.submit(1, Task(SQUARE, (1, 2), (0.0,)))
        pool.begin()
        time.sleep(0.5)
        result = pool.result(1, FIELDS).message
        assert result is not None
        assert result["square"].tolist() == [4.0]
        pool.drop(5)
    finally:
        pool.close()


class LateSquares(Squares):
    """As on a GPU: results are there once they are waited for."""

    def __init__(self, plain: dict[str, Any], number: int, arena: Arena, places: Any) -> None:
        super().__init__(plain, number, arena, places)
        self.transfers = LateTransfers()
        self.transfers.attach(arena)


def test_a_place_is_free_when_its_result_is_fetched(monkeypatch: pytest.MonkeyPatch):
    """On a GPU the run may still be copying from it when it has taken the result in."""
    use_threads(monkeypatch)
    options = PoolOptions(1, LateSquares, {}, late := LateTransfers())
    *results, end = place_results(options, [FIELDS], 1, 0)
    pool = ComputePool(options, arena=Arena(end), places=None, results=results, statistics=1)
    try:
        for number in range(4):
            pool.submit(0, Task(SQUARE, (0, number), (0.0,)))
            result = pool.result(0, FIELDS)
            assert result.message is not None
            assert (result.message["square"].tolist(), result.statistics.tolist()) == ([number * 2.0], [number])
            assert late.pending
            pool.release(0)
            assert not late.pending
    finally:
        pool.close()
    assert late.closed


def test_an_empty_result_has_statistics(monkeypatch: pytest.MonkeyPatch):
    pool = started(monkeypatch, 1)
    try:
        pool.submit(0, Task(SQUARE, (0, 7), (0.0,)))
        pool.result(0, FIELDS)
        pool.release(0)
        pool.submit(1, Task(NOTHING, (0, 8)))
        result = pool.result(1, FIELDS)
        assert result.message is None
        assert result.statistics.tolist() == [8], "a step that sends nothing has seen a batch"
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [(WRONG, InputError, r"^algorithm.key=1: wrong; allowed: 2$"), (BROKEN, RuntimeError, "compute process 0 failed:")],
)
def test_an_error_is_the_runs_error(call: int, kind: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch):
    pool = started(monkeypatch, 1)
    try:
        with pytest.raises(kind, match=says):  # noqa: PT012 (it may be there at once)
            pool.submit(0, Task(call))
            pool.result(0, FIELDS)
    finally:
        pool.close()


def test_tasks_are_bytes_and_back():
    task = Task(3, (5, -7, 2**40), (0.1, -1e300), 64)
    assert Task.unpack(task.pack()) == task
    assert Task.unpack(Task(0).pack()) == Task(0)
