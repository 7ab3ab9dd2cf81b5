import numpy as np
import torch

from data.augment import PadCrop, hashed


def splitmix64(state: int) -> int:
    """The published generator, in Python's unbounded integers."""
    mask = (1 << 64) - 1
    state &= mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_hash_is_splitmix64():
    golden, seed, epoch = 0x9E3779B97F4A7C15, 2**63 - 5, 7
    ids = torch.tensor([0, 1, 2, 12345, 2**40, 2**62])
    stream = splitmix64(splitmix64(seed + golden) + epoch + golden)
    expected = [splitmix64(stream + i * golden) for i in ids.tolist()]
    assert hashed(ids, seed=seed, epoch=epoch).numpy().view(np.uint64).tolist() == expected


def test_hash_depends_on_seed_epoch_id():
    ids = torch.arange(1000)
    one = hashed(ids, seed=1, epoch=2)
    assert torch.equal(one.flip(0), hashed(ids.flip(0), seed=1, epoch=2))
    assert torch.equal(one[17:18], hashed(torch.tensor([17]), seed=1, epoch=2))
    assert (one != hashed(ids, seed=1, epoch=3)).all()
    assert (one != hashed(ids, seed=2, epoch=2)).all()
    assert (hashed(ids, seed=2, epoch=1) != one).all()


def test_image_is_a_window_of_its_padding():
    images = torch.randint(1, 256, (64, 3, 6, 5), dtype=torch.uint8)
    changed = PadCrop(2, flip=True)(images, torch.arange(64), seed=0, epoch=0)
    padded = torch.nn.functional.pad(images, (2,) * 4)
    for image, source in zip(changed, padded, strict=True):
        windows = [source[:, y : y + 6, x : x + 5] for y in range(5) for x in range(5)]
        assert any(torch.equal(image, w) or torch.equal(image, w.flip(2)) for w in windows)


def test_places_and_flips_are_uniform():
    """A single bright pixel shows where its window was; the counts are compared with their expectation."""
    n, pad, size = 20_000, 4, 9
    images = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    images[:, 0, 4, 3] = 1
    images[:, 0, 4, 4] = 2  # right of it, unless flipped
    changed = PadCrop(pad, flip=True)(images, torch.arange(n), seed=11, epoch=4)[:, 0]
    flipped = (changed[:, :, :-1] == 2) & (changed[:, :, 1:] == 1)
    straight = (changed[:, :, :-1] == 1) & (changed[:, :, 1:] == 2)
    seen = int(flipped.sum() + straight.sum())
    assert abs(int(flipped.sum()) / seen - 0.5) < 0.02
    rows = (changed == 2).any(2).sum(0)
    assert (rows - n / size).abs().max() < 5 * (n / size) ** 0.5 + 1
    left = (straight.any(1)).sum(0)[:8]  # 8 of the 9 places show both pixels
    assert (left - n / 2 / size).abs().max() < 5 * (n / 2 / size) ** 0.5 + 1


def test_rows_columns_and_flips_are_independent():
    """Every combination of row, column and flip comes equally often: a chi-square test on all of them at once."""
    n, pad, size = 50_000, 2, 7
    places = 2 * pad + 1
    images = torch.zeros(n, 1, size, size, dtype=torch.uint8)
    images[:, 0, 3, 3] = 1
    images[:, 0, 3, 4] = 2  # right of it, unless flipped
    flat = PadCrop(pad, flip=True)(images, torch.arange(n), seed=3, epoch=1).flatten(1)
    first, second = (flat == 1).int().argmax(1), (flat == 2).int().argmax(1)
    row, column, flipped = first // size - 1, first % size - 1, (second < first).long()
    counts = torch.bincount((row * places + column) * 2 + flipped, minlength=2 * places**2).double()
    assert len(counts) == 2 * places**2
    expected = n / len(counts)
    excess = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    assert abs(float(excess) - freedom) < 5 * (2 * freedom) ** 0.5


def test_no_flip_where_none_is_wanted():
    images = torch.zeros(500, 1, 5, 5, dtype=torch.uint8)
    images[:, 0, :, 0] = 1
    images[:, 0, :, 1] = 2
    changed = PadCrop(1, flip=False)(images, torch.arange(500), seed=0, epoch=0)[:, 0]
    assert not ((changed[:, :, :-1] == 2) & (changed[:, :, 1:] == 1)).any()


def test_epochs_and_seeds_differ():
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    crop, ids = PadCrop(4, flip=True), torch.arange(50)
    first = crop(images, ids, seed=0, epoch=0)
    assert torch.equal(first, crop(images, ids, seed=0, epoch=0))
    assert not torch.equal(first, crop(images, ids, seed=0, epoch=1))
    assert not torch.equal(first, crop(images, ids, seed=1, epoch=0))
