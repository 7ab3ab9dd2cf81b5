import numpy as np
import torch

from algorithms.hogwild import Hogwild
from algorithms.shared_memory import draw_coordinates


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_coordinates_are_distinct_ascending_and_uniform():
    counts = torch.zeros(10)
    for seed in range(2000):
        chosen = draw_coordinates(3, 10, generator(seed))
        assert chosen is not None
        assert chosen.unique().tolist() == chosen.tolist()
        counts[chosen] += 1
    assert counts.sum() == 6000
    assert (counts - 600).abs().max() < 5 * (2000 * 0.3 * 0.7) ** 0.5


def test_full_count_is_all_coordinates():
    assert draw_coordinates(10, 10, generator()) is None
    assert draw_coordinates(11, 10, generator()) is None
    assert Hogwild(coordinates=None).coordinates(10, generator()) is None


def test_a_write_changes_the_chosen_coordinates_alone():
    method = Hogwild(coordinates=2)
    method.start(torch.zeros(6), 1)
    method.write(torch.tensor([1, 4]), torch.arange(6.0), 0.5)
    assert method.w.tolist() == [0, -0.5, 0, 0, -2.0, 0]
    method.write(slice(4, 6), torch.arange(6.0), 0.5)
    assert method.w.tolist() == [0, -0.5, 0, 0, -4.0, -2.5]
