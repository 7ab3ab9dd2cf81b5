"""Compressed rows answer as dense samples do, in every operator that dual methods and their models use."""

import numpy as np
import pytest
import torch
from scipy import sparse

from data.sparse import CompressedRows, SparseSplit, fingerprint


def both(rows: int = 7, columns: int = 5, seed: int = 0) -> tuple[CompressedRows, torch.Tensor]:
    random = np.random.default_rng(seed)
    dense = (random.standard_normal((rows, columns)) * (random.random((rows, columns)) < 0.4)).astype(np.float32)
    dense[2] = 0  # a sample without features
    return CompressedRows(sparse.csr_matrix(dense)), torch.from_numpy(dense)


def test_products_are_those_of_dense_samples():
    x, dense = both()
    assert (x.shape, len(x), x.dtype, x.device) == (dense.shape, 7, torch.float32, torch.device("cpu"))
    w, u = torch.linspace(-1, 2, 5), torch.linspace(-2, 1, 7)
    for ours, expected in [
        (x @ w, dense @ w),
        (u @ x, u @ dense),  # pyright: ignore[reportOperatorIssue]
        (torch.matmul(u, x), u @ dense),  # pyright: ignore[reportArgumentType]
        (x @ x.T, dense @ dense.T),
        (x.square().sum(1), dense.square().sum(1)),
        (torch.linalg.vector_norm(u[:, None] * x, dim=1), torch.linalg.vector_norm(u[:, None] * dense, dim=1)),  # pyright: ignore
        (x.new_ones(3), dense.new_ones(3)),
        (x.new_zeros(2, 3), dense.new_zeros(2, 3)),
    ]:
        torch.testing.assert_close(ours, expected)


def test_float64_rows_make_float64_products():
    x, dense = both()
    exact = dense.double()
    torch.testing.assert_close(x.double() @ exact[0], exact @ exact[0], rtol=1e-15, atol=1e-15)
    assert x.double().dtype == torch.float64


def test_single_rows_are_what_is_not_zero():
    x, dense = both()
    vectors = x.vectors()
    assert len(vectors) == 7
    for (features, values), row in zip(vectors, dense, strict=True):
        assert values.dtype == np.float64
        assert features.tolist() == row.nonzero()[:, 0].tolist()
        assert values.tolist() == row[row != 0].tolist()


def test_rows_are_taken_in_the_order_asked():
    x, dense = both()
    ids = torch.tensor([5, 0, 5])
    torch.testing.assert_close(x[ids] @ dense[0], dense[ids] @ dense[0])


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: torch.exp(x),
        lambda x: torch.ones(7) * x,
        lambda x: x @ torch.ones(5, 2),
        lambda x: x.sum(0),
        lambda x: torch.linalg.vector_norm(x, dim=0),
    ],
    ids=["exp", "a factor without a column", "a matrix", "sum over samples", "norm over samples"],
)
def test_unknown_operators_are_refused(ask):
    with pytest.raises(NotImplementedError, match=r"^compressed rows "):
        ask(both()[0])


def test_a_split_gives_rows_and_dense_batches():
    x, dense = both()
    split = SparseSplit(x.matrix, torch.arange(7) % 2)
    ids = torch.tensor([3, 3, 1])
    rows, targets = split.rows(ids)
    batch, same = split.batch(ids)
    assert torch.equal(batch, dense[ids])
    assert torch.equal(rows @ torch.eye(5)[0], dense[ids, 0])
    assert targets.tolist() == same.tolist() == [1, 1, 1]
    held = x.matrix.data.nbytes + x.matrix.indices.nbytes + x.matrix.indptr.nbytes
    assert (len(split), split.nbytes) == (7, held + 7 * 8)


def test_fingerprint_knows_rows_and_targets():
    x, _ = both()
    targets = torch.arange(7) % 2
    first = fingerprint("", [SparseSplit(x.matrix, targets)])
    assert fingerprint("", [SparseSplit(x.matrix.copy(), targets.clone())]) == first
    changed = x.matrix.copy()
    changed.data[0] += 1
    assert fingerprint("", [SparseSplit(changed, targets)]) != first
    assert fingerprint("", [SparseSplit(x.matrix, 1 - targets)]) != first
