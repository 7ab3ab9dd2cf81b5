"""Graphs and their weights, by hand."""

from typing import Any

import pytest
import torch

from algorithms.gossip_graph import GRAPHS, check_graph, metropolis_weights, neighbours


@pytest.mark.parametrize(
    ("graph", "workers", "expected"),
    [
        ("ring", 1, [[]]),
        ("ring", 2, [[1], [0]]),
        ("ring", 5, [[1, 4], [0, 2], [1, 3], [2, 4], [0, 3]]),
        ("complete", 3, [[1, 2], [0, 2], [0, 1]]),
        # Two rows of three: to the right and left, and to the other row.
        ("torus", 6, [[1, 2, 3], [0, 2, 4], [0, 1, 5], [0, 4, 5], [1, 3, 5], [2, 3, 4]]),
        # A prime number of workers is one row.
        ("torus", 5, [[1, 4], [0, 2], [1, 3], [2, 4], [0, 3]]),
        ("exponential", 7, [sorted({(m + s) % 7 for s in (1, 2, 4, -1, -2, -4)}) for m in range(7)]),
        ("exponential", 9, [sorted({(m + s) % 9 for s in (1, 2, 4, 8, -1, -2, -4, -8)}) for m in range(9)]),
        ([[0, 2], [2, 1], [2, 0]], 3, [[2], [2], [0, 1]]),
    ],
)
def test_neighbours_are_those_of_the_graph(graph: Any, workers: int, expected: list[list[int]]):
    assert neighbours(graph, workers) == expected


def test_a_torus_is_as_square_as_it_can_be():
    assert neighbours("torus", 12)[0] == [1, 3, 4, 8], "three rows of four"
    assert neighbours("torus", 9)[4] == [1, 3, 5, 7]


@pytest.mark.parametrize("graph", [*GRAPHS, [[0, 1], [0, 2], [0, 3], [3, 4], [5, 4], [6, 5], [1, 6]]])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 8, 12])
def test_weights_are_symmetric_and_doubly_stochastic(graph: Any, workers: int):
    if isinstance(graph, list) and workers != 7:
        return
    weights = metropolis_weights(graph, workers)
    assert torch.equal(weights, weights.T)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(workers, dtype=torch.float64), rtol=0, atol=1e-15)
    for one, near in enumerate(neighbours(graph, workers)):
        assert weights[one].nonzero().flatten().tolist() == sorted({*near, *([one] if weights[one, one] else [])})


def test_weights_are_those_of_metropolis():
    third = torch.tensor(1 / 3, dtype=torch.float64)
    assert set(metropolis_weights("ring", 5).flatten().tolist()) == {0.0, float(third)}
    # On the complete graph all are one number, to the bit: a mean of them is a mean over all workers.
    for workers in range(1, 70):
        assert set(metropolis_weights("complete", workers).flatten().tolist()) == {1 / workers}
    # A star: the middle has three neighbours, so each edge weighs a quarter.
    star = metropolis_weights([[0, 1], [0, 2], [0, 3]], 4)
    assert star[0].tolist() == [0.25] * 4
    assert star[1].tolist() == [0.25, 0.75, 0.0, 0.0]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("star", "unknown; allowed: ring, complete, torus, exponential, or edges"),
        ([[0, 0]], r"\[0, 0\] is no edge; allowed: pairs of different workers"),
        ([[0, 1, 2]], r"\[0, 1, 2\] is no edge"),
        ([[0, -1]], r"\[0, -1\] is no edge"),
        ([[0, 1.5]], r"\[0, 1\.5\] is no edge"),
        ([[True, 2]], r"\[True, 2\] is no edge"),
        ([3], "3 is no edge"),
        (7, "7 is no edge"),
    ],
)
def test_what_is_no_graph_is_refused(graph: Any, message: str):
    with pytest.raises(ValueError, match=rf"^algorithm\.graph=.*: {message}"):
        check_graph(graph)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([[0, 1], [1, 4]], "there is no worker 4 among 4; allowed: edges between workers 0 to 3"),
        ([[0, 1], [2, 3]], "no way leads from worker 0 to worker 2; allowed: edges that connect all 4 workers"),
        ([], "no way leads from worker 0 to worker 1"),
    ],
)
def test_workers_must_fit_the_edges(edges: list[list[int]], message: str):
    check_graph(edges)
    with pytest.raises(ValueError, match=message):
        neighbours(edges, 4)
