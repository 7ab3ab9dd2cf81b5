"""Gaussian clusters of any shape, number of classes and size, drawn from a seed; for tests and benchmarks.

Three-dimensional shapes count as images: the class means are coarse there (a 4x4 pattern, enlarged), so that
convolutional networks can learn them, and the samples are stored as bytes, as real images are. Other shapes are
float32.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from data.base import MOST_SAMPLES, Dataset, Split, check_count, limited

GRID = 4
ZERO, UNIT = 128, 32  # bytes that stand for 0, and for a step of 1, in images
CHUNK = 1024
MOST_NOISE = 1e30  # float32 ends at 3e38, and a draw may be six times as large


class Synthetic(Dataset):
    """Samples `mean of the class + noise * N(0, 1)`, where the means' elements are N(0, 1); classes take turns.

    Args:
        shape: of one sample: [22], or [3, 32, 32] for images.
        classes: number of classes, from 2.
        train: number of training samples.
        test: number of test samples.
        noise: standard deviation of the noise; 0 makes all samples of a class equal, larger numbers the task harder.
        seed: of the means and the noise; NumPy's PCG64, the same numbers on every machine.
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`.

    Raises:
        ValueError: wrong option.
    """

    def __init__(
        self,
        *,
        shape: Sequence[int] = (1, 8, 8),
        classes: int = 10,
        train: int = 2000,
        test: int = 500,
        noise: float = 1.0,
        seed: int = 0,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
    ) -> None:
        if not isinstance(shape, Sequence) or isinstance(shape, str) or not shape:
            raise ValueError(f"dataset.shape={shape}: is not a list of sizes; allowed: [22], [3, 32, 32], ...")
        size = tuple(check_count("dataset.shape", side, most=MOST_SAMPLES) for side in shape)
        check_count("dataset.classes", classes, least=2, most=MOST_SAMPLES)
        check_count("dataset.train", train, least=classes, most=MOST_SAMPLES)
        check_count("dataset.test", test, least=classes, most=MOST_SAMPLES)
        check_count("dataset.seed", seed, least=0)
        if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= MOST_NOISE:
            raise ValueError(f"dataset.noise={noise}: is not allowed; allowed: numbers from 0 to {MOST_NOISE:g}")
        random = np.random.Generator(np.random.PCG64(seed))
        means = _means(random, classes, size)
        splits = []
        for count, limit, key in ((train, limit_train, "limit_train"), (test, limit_test, "limit_test")):
            drawn = _drawn(random, means, count, noise)
            splits.append(limited(*drawn, limit, f"dataset.{key}"))
        images = len(size) == 3
        scale = {"mean": [ZERO / 255] * size[0], "std": [UNIT / 255] * size[0]} if images else {}
        super().__init__(
            name="synthetic",
            classes=classes,
            train=Split(*splits[0], **scale),
            test=Split(*splits[1], **scale),
            validation=validation,
        )


def _means(random: np.random.Generator, classes: int, shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) != 3:
        return torch.from_numpy(random.standard_normal((classes, *shape), dtype=np.float32))
    coarse = torch.from_numpy(random.standard_normal((classes, shape[0], GRID, GRID), dtype=np.float32))
    return F.interpolate(coarse, size=shape[1:], mode="nearest")


def _drawn(
    random: np.random.Generator, means: torch.Tensor, count: int, noise: float
) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.arange(count) % len(means)
    images = means.dim() == 4
    inputs = torch.empty((count, *means.shape[1:]), dtype=torch.uint8 if images else torch.float32)
    for start in range(0, count, CHUNK):  # bounds the memory of the float32 draws
        part = means[targets[start : start + CHUNK]]
        part.add_(torch.from_numpy(random.standard_normal(part.shape, dtype=np.float32)), alpha=noise)
        inputs[start : start + CHUNK] = part.mul_(UNIT).add_(ZERO).round_().clamp_(0, 255) if images else part
    return inputs, targets
