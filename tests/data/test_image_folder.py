import logging
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import image_folder
from data.image_folder import ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 20 training and 5 test images of 9x7 pixels; the first pixel's red is class * 50 + number."""
    for split, count in (("train", 20), ("test", 5)):
        for group, name in enumerate(("ant", "bee", "cow")):
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 256, (7, 9, 3), dtype=np.uint8)
                pixels[0, 0, 0] = group * 50 + i
                Image.fromarray(pixels).save(place / f"{i:02}.png")
    return tmp_path / "images"


def packed(folder: Path, name: str) -> Path:
    path = folder.parent / name
    with tarfile.open(path, "w:gz" if name.endswith("gz") else "w") as tar:
        for split in ("test", "train"):  # not the order in which samples are numbered
            tar.add(folder / split, split)
    return path


def test_folder_becomes_a_dataset(folder: Path):
    data = ImageFolder(root=str(folder))
    assert data.name == "image_folder"
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((3, 7, 9), 3, 60, 15)
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.targets.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert data.train.inputs[:, 0, 0, 0].tolist() == [50 * c + i for c in range(3) for i in range(20)]


@pytest.mark.parametrize("name", ["images.tar", "images.tar.gz"])
def test_archive_gives_the_same(folder: Path, name: str):
    path = packed(folder, name)
    assert ImageFolder(root=str(path)).fingerprint == ImageFolder(root=str(folder)).fingerprint


def test_processes_decode_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch):
    alone = ImageFolder(root=str(folder), workers=1)
    monkeypatch.setattr(image_folder, "ALONE", 0)
    monkeypatch.setattr(image_folder, "CHUNK", 4)
    path = packed(folder, "again.tar.gz")
    assert ImageFolder(root=str(path), workers=2).fingerprint == alone.fingerprint


def test_second_time_comes_from_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch):
    first = ImageFolder(root=str(folder))
    monkeypatch.setattr(image_folder, "decoded", None)
    assert ImageFolder(root=str(folder)).fingerprint == first.fingerprint


def test_size_channels_and_limits(folder: Path):
    data = ImageFolder(root=str(folder), size=4, channels=1, limit_train=10, limit_test=4)
    assert data.shape == (1, 4, 4)
    assert torch.bincount(data.train.targets).tolist() == [4, 3, 3]
    assert torch.bincount(data.test.targets).tolist() == [2, 1, 1]


def test_normalisation_and_augmentation(folder: Path):
    data = ImageFolder(root=str(folder), mean=[0.1, 0.2, 0.3], std=[1, 1, 1], augment=True)
    batch, _ = data.train.batch(torch.tensor([3]))
    expected = data.train.inputs[3] / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(batch[0], expected)
    ids = torch.arange(60)
    assert not torch.equal(data.train.batch(ids, seed=0)[0], data.train.batch(ids)[0])
    ids = torch.arange(15)
    assert torch.equal(data.test.batch(ids, seed=0)[0], data.test.batch(ids)[0])


def test_odd_image_is_named(folder: Path):
    Image.new("RGB", (8, 7)).save(folder / "train" / "bee" / "07.png")
    with pytest.raises(ValueError, match=r"dataset.root=.*: train/bee/07.png is 8x7 pixels .*dataset.size=<pixels>"):
        ImageFolder(root=str(folder))
    assert ImageFolder(root=str(folder), size=7).shape == (3, 7, 7)


def test_damaged_image_is_named(folder: Path):
    file = folder / "test" / "cow" / "02.png"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        ValueError, match=r"dataset.root=.*images: test/cow/02.png is not an intact JPEG or PNG"
    ) as error:
        ImageFolder(root=str(folder))
    assert "\n" not in str(error.value)


def test_damaged_image_is_named_by_processes_too(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_folder, "ALONE", 0)
    (folder / "test" / "cow" / "02.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dataset.root=.*images: test/cow/02.png is not an intact JPEG or PNG"):
        ImageFolder(root=str(folder), workers=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "dataset.size=0: .*whole numbers from 1, or null"),
        ({"channels": 2}, "dataset.channels=2: .*allowed: 1, 3"),
        ({"mean": [0.5]}, r"dataset.mean=\[0.5\]: .*list of 3 numbers, or null"),
        ({"std": [1, 1, 0]}, r"dataset.std=\[1, 1, 0\]: .*positive"),
        ({"augment": 1}, "dataset.augment=1: .*true, false"),
        ({"workers": 0}, "dataset.workers=0: "),
        ({"limit_train": 61}, "dataset.limit_train=61: .*from 1 to 60, or null"),
        ({"limit_test": 0}, "dataset.limit_test=0: "),
    ],
)
def test_wrong_options_are_named(folder: Path, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ImageFolder(root=str(folder), **options)


def test_missing_root_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        FileNotFoundError, match=r"dataset.root=/nowhere: no such file or folder; expected: a folder or"
    ):
        ImageFolder(root="/nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"dataset.root=null \(here data-sets\): no such"):
        ImageFolder()


def test_grey_of_sixteen_bits_is_that_of_eight(folder: Path, tmp_path: Path):
    """Once all that lay above 255 became white, without a word."""
    expected = ImageFolder(root=str(folder), channels=1).fingerprint
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"))
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert ImageFolder(root=str(folder), channels=1, cache=str(tmp_path / "other")).fingerprint == expected


def test_chosen_cache_is_used(folder: Path, tmp_path: Path):
    ImageFolder(root=str(folder), cache=str(tmp_path / "mine"))
    assert len(list((tmp_path / "mine").glob("*.safetensors"))) == 1
    with pytest.raises(ValueError, match=r"^dataset.cache=/proc/none: cannot be written; allowed: "):
        ImageFolder(root=str(folder), size=5, cache="/proc/none")


def test_left_out_files_are_named_when_decoded(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "train" / "ant" / "x.webp").touch()
    with caplog.at_level(logging.WARNING):
        ImageFolder(root=str(folder))
        ImageFolder(root=str(folder))
    assert [message.split(": ", 1)[1] for message in caplog.messages] == [
        "left out 1 files or folders: train/ant/x.webp; read: train/<class>/*.jpg|png and test/<class>/*.jpg|png"
    ]


def test_pipe_is_refused_at_once(folder: Path):
    os.mkfifo(folder / "test" / "bee" / "zz.png")
    with pytest.raises(ValueError, match=r"test/bee/zz.png is not a plain file"):
        ImageFolder(root=str(folder))


def test_single_sample_of_each_class_is_a_dataset(tmp_path: Path):
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (1, 1)).save(tmp_path / place / "0.png")
    data = ImageFolder(root=str(tmp_path))
    assert (data.shape, len(data.train), len(data.test)) == ((3, 1, 1), 2, 2)
