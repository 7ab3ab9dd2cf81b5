"""The validation split: samples that are taken away from the training set, to choose settings by.

Which samples these are depends on the data and on how many are asked for, never on the run's seed: a search over
settings and seeds compares scores on the same samples.
"""

from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

KEY = "dataset.validation"
SEED = 5000
"""Of the draw, by NumPy's PCG64. A constant: every other number would make every validation split another one."""


class Divisible(Protocol):
    """A training split that can be divided."""

    targets: Tensor

    def subset(self, ids: Tensor, *, augment: bool) -> Self:
        """Return a split of the samples numbered `ids` [n], in this order; not augmented unless `augment`."""
        ...


Samples = TypeVar("Samples", bound=Divisible)


def divided(train: Samples, validation: object) -> tuple[Samples, Samples | None]:
    """Take the validation samples out of a training split; both parts keep the order of the data.

    Each class gives the same share of its samples, as nearly as whole samples allow, and keeps at least one. Samples
    whose targets are numbers, or several tokens, have no classes: any of them may be taken.

    Args:
        train: the training split, after its limit.
        validation: a share of it (a float between 0 and 1), a number of samples, or None for no validation split.

    Returns:
        What is left to train on, and the validation split, which is not augmented.

    Raises:
        ValueError: `validation` is nothing of the kind, or would leave a class without training samples.
    """
    if validation is None:
        return train, None
    targets = train.targets
    classless = targets.is_floating_point() or targets.dim() > 1
    classes = torch.zeros(len(targets), dtype=torch.int64) if classless else targets
    counts = torch.bincount(classes)
    total = checked(validation, len(targets), len(targets) - int(counts.count_nonzero()))
    taken = torch.tensor(shares(counts.tolist(), total))
    # The samples in a random order, sorted by class: of each class the first ones are taken.
    order = torch.from_numpy(np.random.Generator(np.random.PCG64(SEED)).permutation(len(targets)))
    order = order[torch.argsort(classes[order], stable=True)]
    group = classes[order]
    place = torch.arange(len(targets)) - (torch.cumsum(counts, 0) - counts)[group]
    held_out = torch.zeros(len(targets), dtype=torch.bool)
    held_out[order[place < taken[group]]] = True
    left, chosen = (torch.nonzero(part).flatten() for part in (~held_out, held_out))
    return train.subset(left, augment=True), train.subset(chosen, augment=False)


def checked(validation: object, samples: int, most: int) -> int:
    """Return how many of the training samples `validation` asks for.

    Args:
        validation: see `divided`.
        samples: size of the training set.
        most: so many can be taken.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    count = 0
    if isinstance(validation, int) and not isinstance(validation, bool):
        count = validation
    # Compared before it is rounded, which NaN and infinities cannot be.
    elif isinstance(validation, float) and 0 < validation < 1:
        count = round(validation * samples)
    if 1 <= count <= most:
        return count
    allowed = f"1 to {most} of the {samples} training samples, as a number or as a share between 0 and 1, or null"
    raise ValueError(
        f"{KEY}={validation}: is not allowed; allowed: {allowed if most else 'null'} (each class keeps one)"
    )


def shares(counts: list[int], total: int) -> list[int]:
    """Divide `total` among classes in proportion to their sizes, by the largest remainders.

    Args:
        counts: size of each class.
        total: how many are to be taken; at most all but one of each class that is not empty.

    Returns:
        How many of each class are taken, never all of them.
    """
    samples = sum(counts)
    # In whole numbers, so that no machine rounds otherwise. Below each class's size, as `total` is below `samples`.
    taken = [count * total // samples for count in counts]
    # The largest remainder first; of equal ones the first class.
    order = sorted(range(len(counts)), key=lambda group: -(counts[group] * total % samples))
    # More than one round only if small classes have nothing to give.
    while missing := total - sum(taken):
        for group in [group for group in order if taken[group] < counts[group] - 1][:missing]:
            taken[group] += 1
    return taken
