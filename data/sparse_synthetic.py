"""Sparse samples of any size, density and skew, drawn from a seed: problems in the shape of others that cannot be had.

    how often a feature is there    p_j = min(1, c / (j + 1)^skew), c so that the mean of p_j is the density
    which samples have feature j    round(n p_j) of the n, each set equally likely
    values                          uniform in (0, 1]; with `unit_norm` each sample is divided by its norm
    classes                         1 if x_iᵀw > its median over the samples, w ~ N(0, I); a share of them is flipped

Ours, since no source prescribes such data: what is taken over from a real problem is n, d, the density and, roughly,
how unevenly the features are used. Features are independent of each other, and features of rising number ever rarer.
Zipf's law is skew=1.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse

from data.base import MOST_SAMPLES, Dataset, Split, check_count, check_flag
from data.sparse import DENSE_BYTES, SparseSplit, fingerprint

COMPRESSED_BELOW = 0.1
"""A smaller density is kept compressed: then products with compressed rows are the faster ones."""
CHUNK = 65_536
"""Samples at a time of what needs memory in float64."""
MOST_SKEW = 10.0


class SparseSynthetic(Dataset):
    """`samples` sparse vectors of two classes, as even as the flips leave them, without test samples.

    They are kept compressed (CSR) where the density is below `COMPRESSED_BELOW` or their dense form is larger than
    `DENSE_BYTES`. The same on every machine with the same NumPy.

    Args:
        samples: n.
        features: d.
        density: share of the n·d elements that are not zero, above 0.
        skew: how unevenly features are used, 0 (all alike) to 10.
        unit_norm: whether samples are divided by their Euclidean norm; a sample without features stays zero.
        flipped: share of the classes that are wrong, 0 to 0.5.
        seed: of everything; NumPy's PCG64. Not the run's seed, so that all runs see the same data.
        validation: the validation split, see `data.validation.divided`.

    Raises:
        ValueError: wrong option.
    """

    def __init__(
        self,
        *,
        samples: int = 10_000,
        features: int = 1000,
        density: float = 0.01,
        skew: float = 1.0,
        unit_norm: bool = True,
        flipped: float = 0.1,
        seed: int = 0,
        validation: float | int | None = None,
    ) -> None:
        # Indices of compressed rows are 32 bits wide.
        check_count("dataset.samples", samples, least=2, most=min(MOST_SAMPLES, 2**31 - 1))
        check_count("dataset.features", features, most=min(MOST_SAMPLES, 2**31 - 1))
        check_count("dataset.seed", seed, least=0)
        check_flag("dataset.unit_norm", unit_norm)
        _check_number("dataset.density", density, 0, 1)
        _check_number("dataset.skew", skew, 0, MOST_SKEW)
        _check_number("dataset.flipped", flipped, 0, 0.5)
        if density == 0:
            raise ValueError("dataset.density=0: no element would be other than zero; allowed: 0 < density <= 1")
        random = np.random.Generator(np.random.PCG64(seed))
        matrix = _matrix(random, samples, frequencies(features, density, skew))
        targets = torch.from_numpy(_classes(random, matrix, flipped))
        if unit_norm:
            _normalise(matrix)
        none = torch.zeros(0, dtype=torch.int64)
        dense = density >= COMPRESSED_BELOW and 4 * samples * features <= DENSE_BYTES
        if dense:
            vectors = torch.from_numpy(matrix.toarray())
            train, test = Split(vectors, targets), Split(vectors[:0], none)
        else:
            train, test = SparseSplit(matrix, targets), SparseSplit(matrix[:0], none)
        super().__init__(name="sparse_synthetic", classes=2, train=train, test=test, validation=validation)
        if not dense:
            self.fingerprint = fingerprint(self.fingerprint, self.splits)


def frequencies(features: int, density: float, skew: float) -> Any:
    """Return p_j = min(1, c / (j + 1)^skew) (d,), whose mean is the density."""
    shares = np.arange(1, features + 1, dtype=np.float64) ** -skew
    # If the first k features are in every sample, the others divide what is left by their shares.
    left = density * features - np.arange(features)
    scales = left / np.cumsum(shares[::-1])[::-1]
    k = int(np.argmax(scales * shares <= 1))
    return np.minimum(1.0, np.concatenate([np.ones(k), scales[k] * shares[k:]]))


def _matrix(random: np.random.Generator, samples: int, often: Any) -> Any:
    """Return a CSR matrix (n, d) whose column j has round(n p_j) elements, in float32."""
    counts = np.rint(samples * often).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(counts)])
    rows = np.empty(ends[-1], dtype=np.int32)
    for j, count in enumerate(counts.tolist()):
        rows[ends[j] : ends[j + 1]] = random.choice(samples, count, replace=False, shuffle=False)
    # In (0, 1]: an element that is drawn as zero would be none.
    values = np.float32(1) - random.random(len(rows), dtype=np.float32)
    return sparse.csc_matrix((values, rows, ends), shape=(samples, len(often))).tocsr()


def _classes(random: np.random.Generator, matrix: Any, flipped: float) -> Any:
    """Return class numbers (n,)."""
    planted = random.standard_normal(matrix.shape[1])
    outputs = np.concatenate([part.astype(np.float64) @ planted for part in _parts(matrix)])
    # By the median, so that neither class is rare: values are positive, and a few features are in most samples.
    guesses = outputs > np.median(outputs)
    return (guesses != (random.random(len(guesses)) < flipped)).astype(np.int64)


def _normalise(matrix: Any) -> None:
    """Divide each row by its norm, in place."""
    squares = [part.astype(np.float64).power(2) @ np.ones(matrix.shape[1]) for part in _parts(matrix)]
    norms = np.sqrt(np.concatenate(squares))
    lengths = np.diff(matrix.indptr)
    for low in range(0, len(norms), CHUNK):
        own = slice(matrix.indptr[low], matrix.indptr[min(low + CHUNK, len(norms))])
        # Divided in float64 and rounded once: IEEE 754 leaves no choice of the result to a machine.
        matrix.data[own] = matrix.data[own] / np.repeat(norms[low : low + CHUNK], lengths[low : low + CHUNK])


def _parts(matrix: Any) -> Any:
    return (matrix[low : low + CHUNK] for low in range(0, matrix.shape[0], CHUNK))


def _check_number(key: str, value: object, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{key}={value}: is out of range; allowed: numbers from {least:g} to {most:g}")
