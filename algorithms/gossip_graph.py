"""The graphs of decentralised methods, and the weights with which neighbours average.

    W_ij = 1 / (1 + max(d_i, d_j)) for an edge {i, j},    W_ii = 1 − Σ_j W_ij,    else 0        Metropolis weights

d_i is the number of neighbours of worker i. W is symmetric, its rows and columns add up to 1: on a ring of three or
more workers each has the weight 1/3, on the complete graph 1/M.

Source of the weights: Xiao, Boyd and Kim, "Distributed average consensus with least-mean-square deviation", Journal of
Parallel and Distributed Computing 67, 2007. D-PSGD asks that W be symmetric and doubly stochastic, which they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from math import isqrt

import torch
from torch import Tensor

GRAPHS = ("ring", "complete", "torus", "exponential")
"""Graphs that have a name. A torus of M workers has as many rows as the largest divisor of M up to √M; on an
exponential graph a worker's neighbours are 1, 2, 4 … places further, both ways around."""

Edges = Sequence[Sequence[int]]


def check_graph(graph: str | Edges) -> None:
    """Check that `algorithm.graph` is a name, or a list of edges between workers, whatever their number is.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    if isinstance(graph, str):
        if graph not in GRAPHS:
            raise ValueError(f"algorithm.graph={graph}: unknown; allowed: {', '.join(GRAPHS)}, or edges [[0,1],[1,2]]")
        return
    for edge in graph if isinstance(graph, Sequence) else [graph]:
        pair = list(edge) if isinstance(edge, Sequence) else [edge]
        whole = all(type(worker) is int and worker >= 0 for worker in pair)
        if len(pair) != 2 or not whole or pair[0] == pair[1]:
            what = f"{edge} is no edge"
            raise ValueError(f"algorithm.graph={graph}: {what}; allowed: pairs of different workers, counted from 0")


def neighbours(graph: str | Edges, workers: int) -> list[list[int]]:
    """Return the neighbours of each worker, ascending, of a graph that `check_graph` has found right.

    Raises:
        ValueError: an edge leads to a worker that is not there, or not every worker reaches all others.
    """
    found = [set[int]() for _ in range(workers)]
    for one, other in _named_edges(graph, workers) if isinstance(graph, str) else graph:
        if max(one, other) >= workers:
            what = f"there is no worker {max(one, other)} among {workers}"
            raise ValueError(f"algorithm.graph={graph}: {what}; allowed: edges between workers 0 to {workers - 1}")
        # A way of no step, or the same way around from both sides, as on a ring of two, is no edge of its own.
        if one != other:
            found[one].add(other)
            found[other].add(one)
    if apart := set(range(workers)) - _reached(found):
        what = f"no way leads from worker 0 to worker {min(apart)}"
        raise ValueError(f"algorithm.graph={graph}: {what}; allowed: edges that connect all {workers} workers")
    return [sorted(each) for each in found]


def metropolis_weights(graph: str | Edges, workers: int) -> Tensor:
    """Return W (M, M), float64, of a graph; see `neighbours` for what is raised."""
    near = neighbours(graph, workers)
    weights = torch.zeros(workers, workers, dtype=torch.float64)
    for one, others in enumerate(near):
        # In fractions: on a complete graph what is left for the worker itself is 1/M to the bit, as for the others.
        row = {other: Fraction(1, 1 + max(len(others), len(near[other]))) for other in others}
        for other, weight in (row | {one: 1 - sum(row.values())}).items():
            weights[one, other] = float(weight)
    return weights


def _named_edges(graph: str, workers: int) -> Iterator[tuple[int, int]]:
    """Yield the edges of a graph that has a name, some of them twice or from a worker to itself."""
    rows = max(rows for rows in range(1, isqrt(workers) + 1) if workers % rows == 0)
    columns = workers // rows
    for worker in range(workers):
        row, column = divmod(worker, columns)
        if graph == "torus":
            yield worker, row * columns + (column + 1) % columns
            yield worker, (row + 1) % rows * columns + column
            continue
        for step in _steps(graph, workers):
            yield worker, (worker + step) % workers


def _steps(graph: str, workers: int) -> Iterable[int]:
    """Return how many places further around the neighbours of a worker are."""
    if graph == "exponential":
        return [2**power for power in range((workers - 1).bit_length())]
    return range(1, workers) if graph == "complete" else [1]


def _reached(near: Sequence[Iterable[int]]) -> set[int]:
    """Return the workers that worker 0 reaches, itself too."""
    reached, ahead = {0}, [0]
    while ahead:
        new = set(near[ahead.pop()]) - reached
        reached |= new
        ahead += new
    return reached
