"""Random vectors of Euclidean norm 1: the data of the step of principal component analysis in Huo's thesis, eq. 3.40.

The thesis: "random vectors which are mean subtracted and normalized to have Euclidean norm 1"; their distribution is
not given. Ours: standard normal, the samples' mean subtracted, then each divided by its norm, which leaves a mean of
about 1/sqrt(n·d).
"""

import numpy as np
import torch

from data.base import MOST_SAMPLES, Dataset, Split, check_count

CHUNK = 16_384
"""Samples drawn at a time; bounds the memory of the draws."""


class UnitVectors(Dataset):
    """`samples` vectors of length `features`, without labels (one class) and without test samples.

    Args:
        samples: n; the thesis has 500,000.
        features: d; the thesis has 500.
        seed: of the vectors; NumPy's PCG64. Not the run's seed, so that all runs see the same data.
        validation: the validation split, see `data.validation.divided`.

    Raises:
        ValueError: wrong option.
    """

    def __init__(
        self, *, samples: int = 10_000, features: int = 50, seed: int = 0, validation: float | int | None = None
    ) -> None:
        check_count("dataset.samples", samples, least=2, most=MOST_SAMPLES)
        check_count("dataset.features", features, most=MOST_SAMPLES)
        check_count("dataset.seed", seed, least=0)
        random = np.random.Generator(np.random.PCG64(seed))
        vectors = torch.empty(samples, features)
        for low in range(0, samples, CHUNK):
            part = vectors[low : low + CHUNK]
            part.copy_(torch.from_numpy(random.standard_normal(tuple(part.shape), dtype=np.float32)))
        vectors.sub_(vectors.mean(0, dtype=torch.float64).float())
        vectors.div_(torch.linalg.vector_norm(vectors, dim=1, keepdim=True))
        none = torch.zeros(0, dtype=torch.int64)
        train = Split(vectors, torch.zeros(samples, dtype=torch.int64))
        test = Split(vectors[:0], none)
        super().__init__(name="unit_vectors", classes=1, train=train, test=test, validation=validation)
