"""The handwritten digits that come with scikit-learn: 1797 images of 8x8, no file or network needed.

Optical recognition of handwritten digits (Alpaydin and Kaynak, UCI 1998), its test part.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from data.augment import PadCrop
from data.base import Dataset, Split, check_flag, limited

MEAN, STD = (0.3053,), (0.3760,)  # of all pixels, which are 0 to 16, on the scale 0 to 1
WHITE = 16.0
TEST_EVERY = 5
FILE = "datasets/data/digits.csv.gz"
"""In scikit-learn's folder: a line an image, its 64 pixels and its class."""


class Digits(Dataset):
    """1437 training and 360 test images of shape (1, 8, 8), 10 classes; each class is split in the same proportion.

    The split is fixed: of the samples sorted by class, and within a class in scikit-learn's order, every fifth is for
    testing.

    Args:
        augment: padding-crop by one pixel on training batches; no flip, for a mirrored digit is no digit.
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`.

    Raises:
        ValueError: wrong option.
    """

    def __init__(
        self,
        *,
        augment: bool = False,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
    ) -> None:
        crop = PadCrop(1, flip=False) if check_flag("dataset.augment", augment) else None
        table = torch.as_tensor(_read())
        images = table[:, :-1].to(torch.uint8).reshape(-1, 1, 8, 8)
        targets = table[:, -1].to(torch.int64)
        by_class = torch.argsort(targets, stable=True)
        held_out = torch.zeros(len(targets), dtype=torch.bool)
        held_out[by_class[::TEST_EVERY]] = True
        train = limited(images[~held_out], targets[~held_out], limit_train, "dataset.limit_train")
        test = limited(images[held_out], targets[held_out], limit_test, "dataset.limit_test")
        super().__init__(
            name="digits",
            classes=10,
            train=Split(*train, mean=MEAN, std=STD, white=WHITE, augment=crop),
            test=Split(*test, mean=MEAN, std=STD, white=WHITE),
            validation=validation,
        )


def _read() -> np.ndarray:
    """Return the table of pixels and classes, (1797, 65).

    This is what `sklearn.datasets.load_digits` reads. Importing that module takes a second, in every rank of a run, and
    reading the file a fortieth of one.
    """
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    return np.loadtxt(Path(package.origin).parent / FILE, delimiter=",")
