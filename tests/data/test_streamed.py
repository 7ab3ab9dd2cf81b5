"""Images that are decoded as they are used: their values, what is decoded ahead, what a damaged file says."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import DamagedImage, streamed
from data.crops import Place
from data.streamed import Decoders, StreamedSplit

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


class Counted(Decoders):
    """Decodes in threads, and counts the images."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self._pool = ThreadPoolExecutor(2) if workers else None
        self.images = 0

    def submit(self, places: list[Place], size: int, keys: list[int] | None) -> list["Future[np.ndarray]"]:
        self.images += len(places)
        return super().submit(places, size, keys)


def pixels(count: int) -> np.ndarray:
    """Images of 8x8: the middle square of 7 needs no resizing, since 7 · 256 / 224 is 8."""
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


class Listed(list[Place]):
    """Places as a list."""

    def subset(self, ids: torch.Tensor) -> "Listed":
        return Listed(self[number] for number in ids.tolist())


def split(folder: Path, count: int, decoders: Decoders, augment: bool = False) -> StreamedSplit:
    places = Listed()
    for number, image in enumerate(pixels(count)):
        path = folder / f"{number}.png"
        Image.fromarray(image).save(path)
        places.append((path.name, str(path), 0, -1))
    targets = torch.arange(count) % 3
    return StreamedSplit(
        places, targets, decoders=decoders, size=7, mean=MEAN, std=STD, augment=augment, label="dataset.root=here"
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_values_are_numpys(tmp_path: Path, workers: int):
    data = split(tmp_path, 5, Counted(workers))
    inputs, targets = data.batch(torch.tensor([4, 0, 3]))
    # (8 − 7) / 2 is rounded to 0: the square begins in the corner.
    expected = (pixels(5)[[4, 0, 3], :7, :7] / 255 - MEAN) / STD
    np.testing.assert_allclose(inputs.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)
    assert inputs.dtype == torch.float32
    assert targets.tolist() == [1, 0, 0]
    assert (len(data), data.nbytes) == (5, 40)


def test_announced_batches_are_decoded_once(tmp_path: Path):
    decoders = Counted(2)
    data = split(tmp_path, 6, decoders)
    first, second = torch.tensor([0, 1]), torch.tensor([2, 3])
    for _ in range(2):
        data.expect(first, seed=1, epoch=0)
    assert decoders.images == 2
    data.batch(first, seed=1, epoch=0)
    assert decoders.images == 2
    data.batch(second, seed=1, epoch=0)
    assert decoders.images == 4, "nobody announced it"
    data.expect(first, seed=1, epoch=0)
    data.batch(first, seed=1, epoch=1)
    assert decoders.images == 8, "another pass has other crops"


def test_subset_has_images_and_announcements_of_its_own(tmp_path: Path):
    decoders = Counted(2)
    data = split(tmp_path, 6, decoders, augment=True)
    first = torch.tensor([0, 1])
    data.expect(first)
    part = data.subset(torch.tensor([5, 3]), augment=False)
    images, targets = part.batch(first)
    assert decoders.images == 4, "what was announced is of other images"
    assert torch.equal(images, data.batch(torch.tensor([5, 3]))[0])
    assert (targets.tolist(), len(part)) == ([2, 0], 2)
    assert torch.equal(part.batch(first, seed=1)[0], images)


def test_few_images_are_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streamed, "AHEAD", 4)
    decoders = Counted(2)
    data = split(tmp_path, 6, decoders)
    batches = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])]
    for ids in batches:
        data.expect(ids)
    assert decoders.images == 4
    data.batch(batches[0])
    data.expect(batches[2])
    assert decoders.images == 6, "there is room again"


def test_crop_depends_on_the_sample_alone(tmp_path: Path):
    data = split(tmp_path, 6, Counted(0), augment=True)
    together, _ = data.batch(torch.arange(6), seed=3, epoch=1)
    alone, _ = data.batch(torch.tensor([4]), seed=3, epoch=1)
    assert torch.equal(together[4], alone[0])
    later, _ = data.batch(torch.arange(6), seed=3, epoch=2)
    assert not torch.equal(together, later)
    plain, _ = split(tmp_path, 6, Counted(0)).batch(torch.arange(6), seed=3, epoch=1)
    assert torch.equal(plain, data.batch(torch.arange(6))[0]), "without augmentation a seed changes nothing"


def test_damaged_image_names_its_source(tmp_path: Path):
    data = split(tmp_path, 2, Counted(0))
    (tmp_path / "1.png").write_bytes(b"no image")
    assert len(data.batch(torch.tensor([0]))[0]) == 1
    with pytest.raises(
        DamagedImage, match=r"^dataset\.root=here: 1\.png is not .*; expected: intact JPEG or PNG images"
    ):
        data.batch(torch.tensor([0, 1]))
