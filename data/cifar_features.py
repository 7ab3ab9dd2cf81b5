"""CIFAR-10 as 384 features from a fixed layer of random filters: the data of figure 3 of Huo's thesis (2020).

The thesis (section 2.5.2) takes them from the second fully connected layer of a pre-trained network, which is not
published. Ours, computed once and cached:

    r_f   = cos(w_f, x − mean of x), x each of 27² patches of 6x6 pixels in three colours, w_f one of 96 normal filters
    φ_fq  = Σ over the patches of quadrant q of max(0, r_f − threshold),    4 quadrants, 96 x 4 = 384

and each φ_fq is standardised: mean 0 and variance 1 over all training images, whatever the limits.

Why the network is not a trained one: training rounds differently on another machine or with another number of threads,
so its features would be another data set there. These are the same to the bit everywhere. Filters and pixels are whole
numbers, so small that float32 adds up their products without rounding, in whatever order; what is not whole, roots and
quotients, is computed element by element, where IEEE 754 leaves no choice, and is rounded to whole numbers before it is
added up. It costs little: on 20,000 training and 4,000 test images a perceptron 384-50-10 errs at 39 % of the test
images and a linear classifier at 42 %; on 384 features of a network of two convolutions, trained for one pass, at 38 %
and 37 %.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.base import MOST_WORKERS, Dataset, Split, check_count, check_flag, limited, locate
from data.cache import Tensors, cached, check_cache
from data.cifar import CIFAR10
from data.download import check_url
from data.image_folder import progress_bar

FORMAT = 1
FILTERS, SIDE = 96, 6
TAPS = 3 * SIDE**2
"""Pixels of a patch, each colour counted."""
SPREAD = 64
"""Standard deviation of a filter's numbers; a response is below 2^24, up to which float32 holds all whole numbers."""
CONTRAST = 10
"""Added to the variance of a patch's pixels, which are 0 to 255, so that noise in a flat patch counts little."""
STEPS = 1024
"""Whole numbers that a cosine of 1 is made of."""
THRESHOLD = 100
"""Of these steps."""
CHUNK = 250
"""Images computed at a time; bounds the memory."""


class CIFARFeatures(Dataset):
    """CIFAR-10 as vectors of 384 features, with its ten classes.

    Args:
        root: where CIFAR-10 is, see `data.cifar`.
        seed: of the filters; NumPy's PCG64. Not the run's seed, so that all runs see the same data.
        limit_train: class-balanced subset of so many training samples; the thesis has 20,000.
        limit_test: likewise of the test samples; the thesis has 4,000.
        validation: the validation split, see `data.validation.divided`.
        download: fetches CIFAR-10 as `data.cifar` does.
        url: likewise.
        workers: processes that decode images; None means one per core.
        cache: folder of the features, and of the decoded images; None as in `data.cache`.

    Raises:
        FileNotFoundError: no CIFAR-10 at `root`.
        ValueError: wrong option; what `CIFAR10` raises.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        seed: int = 0,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
        download: bool = False,
        url: str | None = None,
        workers: int | None = None,
        cache: str | None = None,
    ) -> None:
        check_count("dataset.seed", seed, least=0)
        # Checked by CIFAR10 as well, but not where the features are in the cache already.
        check_flag("dataset.download", download)
        check_url(url)
        if workers is not None:
            check_count("dataset.workers", workers, most=MOST_WORKERS, none=True)

        def images() -> CIFAR10:
            return CIFAR10(root=root, augment=False, download=download, url=url, workers=workers, cache=cache)

        place = locate(root)[0]
        # Without a source this fetches one, or says what is missing.
        decoded = images() if CIFAR10.source(place) is None else None
        source = CIFAR10.source(place)
        assert source is not None
        made: dict[str, object] = {"features": FORMAT, "seed": seed}
        tensors = cached(source, made, lambda: _features(decoded or images(), seed), check_cache(cache))
        train = limited(tensors["train_inputs"], tensors["train_targets"], limit_train, "dataset.limit_train")
        test = limited(tensors["test_inputs"], tensors["test_targets"], limit_test, "dataset.limit_test")
        super().__init__(
            name="cifar_features", classes=10, train=Split(*train), test=Split(*test), validation=validation
        )


def filters(seed: int) -> Tensor:
    """Return the filters w_f (96, 108): whole numbers, each filter's of sum zero."""
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal((FILTERS, TAPS))
    w = torch.from_numpy(np.rint(SPREAD * drawn).astype(np.int64))
    # With a sum of zero a patch's mean need not be subtracted from its pixels, which then stay whole numbers.
    surplus = w.sum(1)
    w -= (surplus // TAPS)[:, None]
    w -= (torch.arange(TAPS) < (surplus % TAPS)[:, None]).long()
    return w.float()


def sums(images: Tensor, w: Tensor) -> Tensor:
    """Return φ before it is standardised, in steps of a cosine: whole numbers (B, 384), as float32.

    Args:
        images: bytes (B, 3, 32, 32).
        w: the filters (96, 108).
    """
    patches = F.unfold(images.float(), SIDE)
    # Exact up to here: whole numbers below 2^24, added up in whatever order.
    responses, mean, square = w @ patches, patches.sum(1), patches.square().sum(1)
    # In float64, where the square of a sum of pixels is exact too.
    spread = square.double() - mean.double().square() / TAPS
    length = (spread + CONTRAST * TAPS).sqrt().float()
    scale = (STEPS / w.double().square().sum(1).sqrt()).float()
    steps = (responses / length[:, None]).mul_(scale[:, None]).sub_(THRESHOLD).relu_().round_()
    return (steps @ _quadrants(math.isqrt(steps.shape[2]))).flatten(1)


def _quadrants(side: int) -> Tensor:
    """Return which of side² places are in which quadrant, (side², 4); they share the middle lines of an odd number."""
    places = torch.arange(side)
    halves = torch.stack([places < (side + 1) // 2, places >= side // 2], 1)
    return torch.einsum("rp,cq->rcpq", halves.float(), halves.float()).reshape(side * side, 4)


def _features(images: CIFAR10, seed: int) -> Tensors:
    """Return the standardised features of both splits, with their targets."""
    w, found = filters(seed), {}
    with progress_bar() as progress:
        task = progress.add_task("features of CIFAR-10", total=len(images.train) + len(images.test))
        for name, split in (("train", images.train), ("test", images.test)):
            values = torch.empty(len(split), FILTERS * 4)
            for start in range(0, len(split), CHUNK):
                part = split.inputs[start : start + CHUNK]
                values[start : start + CHUNK] = sums(part, w)
                progress.advance(task, len(part))
            found[f"{name}_inputs"], found[f"{name}_targets"] = values, split.targets
    mean, deviation = _moments(found["train_inputs"])
    for name in ("train_inputs", "test_inputs"):
        found[name] = ((found[name].double() - mean) / deviation).float()
    return found


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column of whole numbers, from exact sums; of a constant column 1."""
    n, whole = len(values), values.long()
    totals, squares = whole.sum(0).tolist(), whole.square().sum(0).tolist()
    # Python's whole numbers, since n Σ x² may not fit into 64 bits.
    variances = [(n * square - total**2) / n**2 for total, square in zip(totals, squares, strict=True)]
    means = torch.tensor([total / n for total in totals], dtype=torch.float64)
    return means, torch.tensor([math.sqrt(variance) or 1.0 for variance in variances], dtype=torch.float64)
