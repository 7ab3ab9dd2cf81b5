import hashlib

import pytest
import torch
from torch import nn

from runner.run_folder.fingerprint import weights_sha256


def test_the_digest_is_pinned():
    # Names, types, shapes and little-endian values, written out by hand.
    expected = hashlib.sha256(
        b'["a", "torch.float32", [2, 1]]\n\x00\x00\x80\x3f\x00\x00\x00\x40'
        + b'["b", "torch.int64", []]\n\x03'
        + bytes(7)
    ).hexdigest()
    tensors = {"b": torch.tensor(3), "a": torch.tensor([[1.0], [2.0]])}
    assert weights_sha256(tensors) == expected
    assert weights_sha256(reversed(tensors.items())) == expected


def test_strides_do_not_count():
    weight = torch.randn(4, 3, 5, 5)
    permuted = weight.contiguous(memory_format=torch.channels_last)
    flat = torch.cat([torch.zeros(7), weight.flatten()])
    expected = weights_sha256({"w": weight})
    assert not permuted.is_contiguous()
    assert weights_sha256({"w": permuted}) == expected
    assert weights_sha256({"w": flat[7:].view(4, 3, 5, 5)}) == expected
    assert weights_sha256({"w": nn.Parameter(weight)}) == expected


@pytest.mark.parametrize(
    "other",
    [
        {"v": torch.zeros(2, 3)},
        {"w": torch.zeros(3, 2)},
        {"w": torch.zeros(2, 3, dtype=torch.int32)},
        {"w": -torch.zeros(2, 3)},
        {"w": torch.zeros(2, 3), "x": torch.zeros(0)},
        {},
    ],
)
def test_name_shape_type_and_every_bit_count(other: dict[str, torch.Tensor]):
    assert weights_sha256(other) != weights_sha256({"w": torch.zeros(2, 3)})


def test_half_precision_scalars_and_modules():
    norm = nn.BatchNorm2d(4).to(torch.bfloat16)
    before = weights_sha256(norm.named_buffers())
    assert before != weights_sha256(norm.named_parameters())
    assert norm.running_mean is not None
    norm.running_mean[1] = 1
    assert weights_sha256(norm.named_buffers()) != before


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match="'w'"):
        weights_sha256([("w", torch.zeros(1)), ("w", torch.ones(1))])
