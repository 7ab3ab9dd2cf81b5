import math

import pytest
import torch

from algorithms import sdca_blocks
from algorithms.sdca_blocks import block_size, is_narrow, narrow_steps


@pytest.mark.parametrize("features", [1, 22, 54, 64])
@pytest.mark.parametrize("steps", [1, 99, 100, 129, 1000, 5000])
def test_blocks_are_even_and_use_one_thread(steps: int, features: int):
    size = block_size(steps, features)
    blocks = math.ceil(steps / size)
    assert size * (size + 1) * features <= sdca_blocks.ALONE
    assert size <= sdca_blocks.BLOCK
    # No size gives fewer blocks within these bounds, and none of so many blocks is smaller.
    most = max(n for n in range(1, sdca_blocks.BLOCK + 1) if n * (n + 1) * features <= sdca_blocks.ALONE)
    assert blocks == math.ceil(steps / most)
    assert size == math.ceil(steps / blocks)


def test_a_hundred_samples_of_ijcnn1_are_one_block():
    assert block_size(100, 22) == 100


def test_only_few_features_in_cpu_memory_are_narrow():
    assert is_narrow(torch.zeros(3, 64))
    assert not is_narrow(torch.zeros(3, 65))
    assert not is_narrow(torch.zeros(0, 5))
    assert not is_narrow(torch.zeros(3, 5, device="meta"))


def test_one_step_by_hand():
    """x = (3, 4), κ = 2, σ'/λn = 0.2: δ = −2/(1 + 0.2 · 25) = −1/3."""
    change, u = narrow_steps(torch.tensor([[3.0, 4.0]]), None, torch.tensor([2.0]), 0.2)
    torch.testing.assert_close(change, torch.tensor([-1 / 3], dtype=torch.float64))
    torch.testing.assert_close(u, torch.tensor([-1.0, -4 / 3], dtype=torch.float64))
