"""The half of ImageNet's transforms that runs in worker processes: files in, uint8 squares out. Does not import torch.

As torchvision's training recipe has them: `RandomResizedCrop(224)` and `RandomHorizontalFlip()`, for evaluation
`Resize(256)` and `CenterCrop(224)`, on Pillow images with bilinear interpolation. The first is that of Szegedy et al.
2015, "Going deeper with convolutions", section 6. Random numbers come from a key per sample, so that it looks the same
in every process.
"""

import math
import random

import numpy as np
from PIL import Image

from data.decode import image

Place = tuple[str, str, int, int]  # name for messages, path, where the image starts in that file, its length (-1: all)

SCALE = (0.08, 1.0)  # of the image's area
RATIO = (3 / 4, 4 / 3)  # width / height
TRIES = 10


def squares(places: list[Place], size: int, keys: list[int] | None) -> np.ndarray:
    """Read images and cut a square out of each.

    Args:
        places: where the images lie.
        size: pixels of the square's side.
        keys: one for each image, from which its random crop and flip follow; None: the middle square.

    Returns:
        uint8 array [len(places), size, size, 3].

    Raises:
        ValueError: a file cannot be read, or is not an intact JPEG or PNG.
    """
    result = np.empty((len(places), size, size, 3), np.uint8)
    for number, place in enumerate(places):
        picture = image(place[0], _content(place), 3)
        result[number] = np.asarray(middle(picture, size) if keys is None else at_random(picture, size, keys[number]))
    return result


def middle(picture: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to 256/224 of `size` and cut the middle square."""
    shorter = size * 256 // 224
    width, height = (
        shorter if side == min(picture.size) else int(shorter * side / min(picture.size)) for side in picture.size
    )
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def at_random(picture: Image.Image, size: int, key: int) -> Image.Image:
    """Cut a random box, resize it to a square, and flip half of the images: a function of `key`."""
    draw = random.Random(key)
    left, top, width, height = box(*picture.size, draw)
    cut = picture.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    return cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else cut


def box(width: int, height: int, draw: random.Random) -> tuple[int, int, int, int]:
    """Return a random box (left, top, width, height) inside an image, or the middle one if ten draws do not fit."""
    for _ in range(TRIES):
        area = width * height * draw.uniform(*SCALE)
        ratio = math.exp(draw.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            top, left = int(draw.random() * (height - down + 1)), int(draw.random() * (width - across + 1))
            return left, top, across, down
    across, down = width, height
    if width / height < RATIO[0]:
        down = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        across = round(height * RATIO[1])
    return (width - across) // 2, (height - down) // 2, across, down


def _content(place: Place) -> bytes:
    name, path, start, length = place
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(length)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror})") from None
