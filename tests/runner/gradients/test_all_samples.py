import pytest
import torch
from scipy import sparse

from data.base import Split
from data.sparse import CompressedRows, SparseSplit
from runner.gradients import all_samples
from runner.gradients.all_samples import AllSamples


def test_chunks_are_all_samples_in_order(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(all_samples, "CHUNK", 3)
    x, targets = torch.arange(16.0).view(8, 2, 1), torch.arange(8) % 2
    samples = AllSamples(Split(x, targets), 2)
    chunks = list(samples)
    assert [ids.tolist() for ids, _, _ in chunks] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert (len(samples), samples.chunks) == (8, 3)
    assert all(rows.dtype == torch.float64 for _, rows, _ in chunks)
    assert torch.equal(torch.cat([rows for _, rows, _ in chunks]), x.flatten(1).double())
    assert torch.equal(torch.cat([each for _, _, each in chunks]), targets)


def test_chunks_of_many_features_are_shorter():
    split = Split(torch.zeros(10, 1), torch.zeros(10))
    assert AllSamples(split, 16_384).chunk == 8192
    assert AllSamples(split, 47_236).chunk == 2841
    assert AllSamples(split, 2**40).chunk == 1


def test_compressed_rows_stay_compressed():
    split = SparseSplit(sparse.csr_matrix([[0.0, 1.5], [2.0, 0.0]], dtype="float32"), torch.tensor([0, 1]))
    [(_, rows, _)] = AllSamples(split, 2)
    assert isinstance(rows, CompressedRows)
    assert rows.dtype == torch.float64
    assert AllSamples(split, 2).nbytes == split.nbytes
