"""Contributions as one vector: what is packed comes out to the bit, whatever its type."""

import torch

from algorithms.base import Field
from runner.processes.packing import Packing

EXTRA = torch.tensor([7.0, 8.0])


def test_floats_are_packed_one_after_the_other():
    packing = Packing({"g": 3, "norm": 1}, 2)
    vector = packing.pack({"g": torch.tensor([1.0, 2, 3]), "norm": torch.tensor([4.0])}, EXTRA)
    assert vector.tolist() == [1, 2, 3, 4, 7, 8]
    fields, extra = packing.unpack(vector[None])
    assert fields["g"].data_ptr() == vector.data_ptr(), "a view"
    assert (fields["norm"].tolist(), extra.tolist()) == ([[4.0]], [[7.0, 8.0]])


def test_other_types_arrive_to_the_bit():
    """Odd numbers of bytes, values that no float32 holds, bits that are no number as floats."""
    fields = {
        "small": Field(3, torch.int8),
        "g": 2,
        "ids": Field(2, torch.int64),
        "half": Field(1, torch.bfloat16),
        "flags": Field(5, torch.bool),
        "exact": Field(2, torch.float64),
    }
    packing = Packing(fields, 2)

    def message(rank: int) -> dict[str, torch.Tensor]:
        return {
            "small": torch.tensor([-1, 127, rank], dtype=torch.int8),
            "g": torch.tensor([0.1, float("nan")]),
            "ids": torch.tensor([2**53 + 1 + rank, -1]),
            "half": torch.tensor([1.5 + rank], dtype=torch.bfloat16),
            "flags": torch.tensor([True, False, True, True, bool(rank)]),
            "exact": torch.tensor([0.1 + rank, float("inf")], dtype=torch.float64),
        }

    stacked = torch.stack([packing.pack(message(rank), EXTRA + rank) for rank in range(2)])
    found, extra = packing.unpack(stacked)
    assert extra.tolist() == [[7, 8], [8, 9]]
    for rank in range(2):
        for name, tensor in message(rank).items():
            assert found[name].dtype is tensor.dtype
            assert found[name][rank].view(torch.uint8).tolist() == tensor.view(torch.uint8).tolist(), name
