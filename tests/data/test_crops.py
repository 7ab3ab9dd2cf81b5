import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from data import crops
from data.crops import at_random, box, middle, squares


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (256, 300), (40, 31), (1000, 225)])
def test_evaluation_is_torchvisions(size):
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    assert np.array_equal(np.asarray(middle(picture(*size), 224)), np.asarray(theirs(picture(*size))))


def test_training_is_torchvisions_at_the_same_box():
    image: Any = picture(90, 60)
    seen = set()
    for key in range(20):
        left, top, width, height = box(90, 60, random.Random(key))
        cut: Any = functional.resized_crop(image, top, left, height, width, [32, 32])
        found = np.asarray(at_random(image, 32, key))
        flipped = not np.array_equal(found, np.asarray(cut))
        assert np.array_equal(found, np.asarray(functional.hflip(cut) if flipped else cut))
        seen.add(flipped)
    assert seen == {True, False}


@pytest.mark.parametrize("size", [(400, 300), (60, 500)])
def test_boxes_are_distributed_as_torchvisions(size):
    width, height = size
    torch.manual_seed(0)
    theirs = torch.tensor(
        [
            transforms.RandomResizedCrop.get_params(torch.empty(3, height, width), [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(3000)
        ],
        dtype=torch.float64,
    )[:, [1, 0, 3, 2]]
    ours = torch.tensor([box(width, height, random.Random(key)) for key in range(3000)], dtype=torch.float64)
    spread = theirs.std(0).clamp(min=1)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * spread / math.sqrt(1500)).all()
    torch.testing.assert_close(ours.std(0), theirs.std(0), rtol=0.1, atol=0.5)
    assert (ours[:, 0] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= width).all()
    assert (ours[:, 1] + ours[:, 3] <= height).all()


def test_place_and_ratio_of_boxes():
    """Rows and columns are drawn apart from each other, and the ratio evenly on a logarithmic scale."""
    made = torch.tensor([box(400, 400, random.Random(key)) for key in range(3000)], dtype=torch.float64)
    left, top, width, height = made.unbind(1)
    free = (width < 396) & (height < 396)
    places = torch.stack([left / (400 - width), top / (400 - height)])[:, free]
    assert abs(float(torch.corrcoef(places)[0, 1])) < 0.1
    assert abs(float((width / height).log().mean())) < 0.012


def test_half_of_the_images_are_flipped():
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 24, axis=0).repeat(3, axis=2)
    cuts = [np.asarray(at_random(Image.fromarray(ramp), 8, key)).astype(int) for key in range(400)]
    flipped = sum(cut[:, 0].mean() > cut[:, -1].mean() for cut in cuts)
    assert abs(flipped - 200) < 50


@pytest.mark.parametrize(("size", "expected"), [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10))])
def test_narrow_images_give_their_middle(size, expected, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crops, "TRIES", 0)
    width, height = size
    assert box(width, height, random.Random(0)) == expected


def test_images_of_other_modes_become_rgb(tmp_path):
    for mode in ("L", "CMYK", "RGBA", "P"):
        suffix = "png" if mode in ("RGBA", "P") else "jpg"
        picture(20, 20).convert(mode).save(tmp_path / f"{mode}.{suffix}")
        place = (mode, str(tmp_path / f"{mode}.{suffix}"), 0, -1)
        assert squares([place], 8, [1]).shape == (1, 8, 8, 3)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^val/x/y.JPEG cannot be read \(No such file or directory\)$"):
        squares([("val/x/y.JPEG", str(tmp_path / "y"), 0, -1)], 8, None)
