"""Ranks agree to stop after the same combination, without processes."""

import pytest
import torch

from algorithms.d_psgd import DPSGD
from runner.loop.mixing import Mixing
from runner.processes import stop_flags
from runner.processes.stop_flags import SpreadFlags, StopFlags

FINE, INFINITE = torch.tensor(1.0), torch.tensor(float("nan"))


def spread(asked: dict[int, int], infinite: dict[int, int], delay: int = 0) -> list[tuple[int, str]]:
    """Return when each of six ranks on a line stops, and why; each is asked to, or diverges, from some round on."""
    line = [[worker, worker + 1] for worker in range(5)]
    mixing = Mixing(DPSGD(graph=line), 6)
    assert mixing.hops == 5
    ranks = [SpreadFlags(torch.device("cpu"), mixing.hops * (1 + delay)) for _ in range(6)]
    travelling, stopped = list[list[torch.Tensor]](), dict[int, tuple[int, str]]()
    for number in range(40):
        travelling.append(
            [
                rank.sent(number >= asked.get(m, 99), INFINITE if number >= infinite.get(m, 99) else FINE)
                for m, rank in enumerate(ranks)
            ]
        )
        if len(travelling) <= delay:
            continue
        sent = travelling.pop(0)
        for m, rank in enumerate(ranks):
            verdict = rank.verdict(torch.stack([sent[other] for other in mixing.groups[m]]))
            if verdict is not None:
                stopped.setdefault(m, (number, verdict))
        if stopped:
            break
    return [stopped[m] for m in sorted(stopped)]


@pytest.mark.parametrize("delay", [0, 1, 2])
@pytest.mark.parametrize(
    ("asked", "infinite", "status"),
    [
        ({0: 3}, {}, "interrupted"),
        ({2: 3}, {}, "interrupted"),
        ({}, {5: 3}, "diverged"),
        # Asked one after the other, before the news of the first has come to the last.
        ({0: 3, 5: 5}, {}, "interrupted"),
        ({0: 3, 1: 3, 2: 3, 3: 3, 4: 3, 5: 3}, {}, "interrupted"),
        ({0: 3}, {5: 3}, "diverged"),
        ({0: 3}, {5: 6}, "interrupted"),
    ],
)
def test_all_stop_after_the_same_combination(asked: dict[int, int], infinite: dict[int, int], status: str, delay: int):
    stopped = spread(asked, infinite, delay)
    # The fourth combination is the first that says so: without a delay the last rank knows it four later.
    assert stopped == [(3 + 5 * (1 + delay) - 1 + delay, status)] * 6


def test_nobody_stops_unasked():
    assert spread({}, {}) == []


def test_where_all_combine_all_know_at_once():
    flags = StopFlags(torch.device("cpu"))
    assert flags.sent(True, INFINITE).tolist() == [1.0, 1.0]
    assert flags.sent(False, FINE).tolist() == [0.0, 0.0]
    assert flags.verdict(torch.tensor([[1.0, 0.0], [0.0, 0.0]])) == "interrupted"
    assert flags.verdict(torch.tensor([[1.0, 2.0]])) == "diverged"
    assert flags.verdict(torch.zeros(3, 2)) is None


def test_a_gpu_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch):
    """All ranks look after the same combinations, and go on from what came between."""
    monkeypatch.setattr(stop_flags, "CHECK_EVERY", 4)
    rank = SpreadFlags(torch.device("cpu"), 1)
    rank.device = torch.device("cuda")
    verdicts = []
    for number in range(6):
        rank.device = torch.device("cpu")
        sent = rank.sent(number == 1, FINE)
        rank.device = torch.device("cuda")
        verdicts.append(rank.verdict(sent[None]))
    assert verdicts == [None, None, None, "interrupted", None, None]
