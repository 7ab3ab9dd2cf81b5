"""Samples kept as compressed rows (CSR), and a batch of them in the place of a dense matrix of samples.

Where few features of a sample are not zero, the dense form is mostly zeros: 1000 samples of 47,236 features are 189 MB
for some 75,000 numbers. `CompressedRows` answers the operators that dual methods and their models apply to a matrix of
samples, so that the same lines of a method serve both forms. What they compute on dense samples stays as it is, bit for
bit; on compressed rows sums are taken in the order of the features, on one thread.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from data.base import Split

DENSE_BYTES = 4 * 2**30
"""Largest dense form that is kept."""


class CompressedRows:
    """A sparse matrix of samples (B, d), which takes part in products with tensors.

    Known are `x @ w`, `u @ x`, `x @ y.T`, `v[:, None] * x`, `x[ids]`, `x.T`, `x.double()`, `x.square().sum(1)`,
    `torch.linalg.vector_norm(x, dim=1)`, single rows as `vectors`, and tensors of its type and device by `new_zeros`
    and `new_ones`.

    Args:
        matrix: a SciPy matrix in CSR form; a transposed one in CSC form.
        device: where results are, and are expected to be; the products are taken on the CPU.
    """

    def __init__(self, matrix: Any, device: torch.device | str = "cpu") -> None:
        self.matrix = matrix
        self.device = torch.device(device)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Answer an operator of PyTorch that has a tensor on its left."""
        left, right = args[0], args[1] if len(args) > 1 else None
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__) and isinstance(right, CompressedRows):
            return right.T @ left
        if func in (torch.mul, Tensor.mul, Tensor.__mul__) and isinstance(right, CompressedRows):
            return right._scaled(left)
        if func is torch.linalg.vector_norm and isinstance(left, CompressedRows) and kwargs == {"dim": 1}:
            return left.square().sum(1).sqrt()
        raise NotImplementedError(f"compressed rows do not know {getattr(func, '__name__', func)}")

    @property
    def shape(self) -> torch.Size:
        """(B, d)."""
        return torch.Size(self.matrix.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the elements."""
        return torch.float64 if self.matrix.dtype == np.float64 else torch.float32

    @property
    def T(self) -> CompressedRows:  # noqa: N802  # PyTorch's name
        """The transposed matrix (d, B)."""
        return CompressedRows(self.matrix.T, self.device)

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def __getitem__(self, ids: Tensor) -> CompressedRows:
        """Return the rows numbered `ids`, in this order."""
        return CompressedRows(self.matrix[ids.cpu().numpy()], self.device)

    def __matmul__(self, other: Tensor | CompressedRows) -> Tensor:
        """Return the product with a vector, or with other compressed rows, as a dense tensor."""
        if isinstance(other, CompressedRows):
            return self._dense((self.matrix @ other.matrix).toarray())
        if other.dim() != 1:
            raise NotImplementedError("compressed rows know products with vectors and with each other")
        return self._dense(self.matrix @ other.detach().cpu().numpy())

    def double(self) -> CompressedRows:
        """Return the same rows in float64."""
        return CompressedRows(self.matrix.astype(np.float64), self.device)

    def vectors(self) -> list[tuple[Any, Any]]:
        """Return for each row the numbers of its features that are not zero and their values in float64, NumPy."""
        data = self.matrix.data.astype(np.float64)
        bounds = itertools.pairwise(self.matrix.indptr.tolist())
        return [(self.matrix.indices[low:high], data[low:high]) for low, high in bounds]

    def square(self) -> CompressedRows:
        """Return the rows of the squared elements."""
        return CompressedRows(self.matrix.power(2), self.device)

    def sum(self, dim: int) -> Tensor:
        """Return the sums of the rows (B,), for `dim` 1."""
        if dim != 1:
            raise NotImplementedError("compressed rows know sums over dim=1")
        return self @ self.new_ones(self.shape[1])

    def new_zeros(self, *size: int) -> Tensor:
        """Return dense zeros of the rows' type, on their device."""
        return torch.zeros(size, dtype=self.dtype, device=self.device)

    def new_ones(self, *size: int) -> Tensor:
        """Return dense ones of the rows' type, on their device."""
        return torch.ones(size, dtype=self.dtype, device=self.device)

    def _scaled(self, factors: Tensor) -> CompressedRows:
        """Return row i times factor i; `factors` is (B, 1)."""
        if factors.shape != (len(self), 1):
            raise NotImplementedError("compressed rows know products with a factor for each row, (B, 1)")
        scaled = self.matrix.copy()
        # Not by `multiply`, which goes by way of the COO form.
        scaled.data *= np.repeat(factors[:, 0].cpu().numpy(), np.diff(scaled.indptr))
        return CompressedRows(scaled, self.device)

    def _dense(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)


class SparseSplit(Split):
    """A split whose samples are kept as compressed rows, on the CPU.

    Args:
        matrix: a SciPy CSR matrix (n, features), float32.
        targets: class numbers [n], int64; or numbers to regress on, float32.
    """

    def __init__(self, matrix: Any, targets: Tensor) -> None:
        # What says shape and type to others; it takes no memory.
        super().__init__(torch.empty(0, matrix.shape[1]), targets[:0])
        self.matrix = matrix
        self.targets = targets

    @property
    def nbytes(self) -> int:
        """See `Split.nbytes`."""
        return sum(array.nbytes for array in self.arrays())

    def batch(self, ids: Tensor, *, seed: int | None = None, epoch: int | Tensor = 0) -> tuple[Tensor, Tensor]:
        """See `Split.batch`; the samples are made dense."""
        inputs = torch.from_numpy(self.matrix[ids.cpu().numpy()].toarray())
        return inputs.to(self.inputs.device), self.targets.index_select(0, ids.to(self.targets.device))

    def rows(self, ids: Tensor) -> tuple[CompressedRows, Tensor]:
        """Return a batch as compressed rows (B, d), and its targets."""
        rows = CompressedRows(self.matrix[ids.cpu().numpy()], self.inputs.device)
        return rows, self.targets.index_select(0, ids.to(self.targets.device))

    def subset(self, ids: Tensor, *, augment: bool) -> Self:
        """See `Split.subset`; compressed rows are never augmented."""
        part = copy.copy(self)
        part.matrix, part.targets = self.matrix[ids.numpy()], self.targets[ids]
        return part

    def arrays(self) -> tuple[Any, ...]:
        """Return everything it holds, as NumPy arrays."""
        return self.matrix.data, self.matrix.indices, self.matrix.indptr, self.targets.cpu().numpy()


def fingerprint(before: str, splits: Sequence[Split]) -> str:
    """Return a sha256 (hex) of another fingerprint, which does not know the rows, and of splits of compressed rows."""
    digest = hashlib.sha256(before.encode())
    for split in splits:
        assert isinstance(split, SparseSplit)
        for array in split.arrays():
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
