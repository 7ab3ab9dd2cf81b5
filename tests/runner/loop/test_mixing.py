"""Groups of neighbours, by hand."""

from typing import Any

import pytest
import torch

from algorithms.d_psgd import DPSGD
from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.loop.clock import Clock
from runner.loop.mixing import Mixing

STAR: Any = [[0, 1], [0, 2], [0, 3]]


@pytest.mark.parametrize(
    ("graph", "workers", "hops"),
    [
        ("ring", 1, 0),
        ("ring", 2, 1),
        ("ring", 7, 3),
        ("complete", 7, 1),
        (STAR, 4, 2),
        ([[0, 1], [1, 2], [2, 3]], 4, 3),
    ],
)
def test_news_take_as_many_hops_as_the_graph_is_wide(graph: Any, workers: int, hops: int):
    assert Mixing(DPSGD(graph=graph), workers).hops == hops


def test_a_mean_is_over_the_group_with_its_weights():
    mixing = Mixing(DPSGD(graph=STAR), 4)
    assert mixing.groups == [[0, 1, 2, 3], [0, 1], [0, 2], [0, 3]]
    vectors = [torch.tensor([8.0, -8.0]), torch.tensor([4.0, 0.0])]
    assert mixing.mixed(2, vectors).tolist() == [8 / 4 + 3.0, -2.0]
    assert vectors[0].tolist() == [8.0, -8.0]


def test_an_even_mean_has_the_bits_of_a_sum_that_is_divided():
    vectors = list(torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)))
    mean = Mixing(DPSGD(), 3).mixed(1, vectors)
    assert torch.equal(mean, (vectors[0] + vectors[1] + vectors[2]) / 3)
    assert not torch.equal(mean, vectors[0] / 3 + vectors[1] / 3 + vectors[2] / 3)


@pytest.mark.parametrize(
    ("kind", "seconds", "nbytes"),
    [
        # The middle gets three messages of a latency and 2 s each, the others one; six messages of 16 bytes in all.
        ("ring", [3 * 2.5, 2.5, 2.5, 2.5], 6 * 16),
        # A latency and the bytes of all in the group; each sends its own once.
        ("linear", [0.5 + 4 * 2, 4.5, 4.5, 4.5], 4 * 16),
    ],
)
def test_groups_cost_what_an_all_gather_of_their_size_costs(kind: str, seconds: list[float], nbytes: int):
    network = NetworkConfig(latency=0.5, bandwidth=8.0, allreduce=kind)
    clock = Clock(ComputeConfig(), StragglersConfig(), network, workers=4, seed=0)
    mixing = Mixing(DPSGD(graph=STAR), 4)
    assert mixing.seconds(clock, 16) == seconds
    assert mixing.nbytes(clock, 16) == nbytes
