import multiprocessing
import os
import pickle
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from data import streamed
from data.imagenet import ImageNet

NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
WNIDS = ("n01440764", "n01443537", "n02105855")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 8 training and 3 validation photographs of different sizes."""
    root = tmp_path_factory.mktemp("imagenet") / "images"
    for split, count in (("train", 8), ("val", 3)):
        for group, wnid in enumerate(WNIDS):
            (root / split / wnid).mkdir(parents=True)
            for i in range(count):
                random = np.random.default_rng(100 * group + i)
                coarse = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                size = (40 + 7 * i, 60 - 5 * i)
                name = f"{wnid}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{group}{i}.JPEG"
                Image.fromarray(coarse).resize(size).save(root / split / wnid / name, format="JPEG")
    return root


@pytest.fixture(scope="module")
def parallel(folder: Path) -> ImageNet:
    """Decoded by two processes."""
    return ImageNet(root=str(folder), size=32, workers=2)


def packed(folder: Path, path: Path, mode: str = "w", around: str = "") -> Path:
    """Pack the images, the last name first: archives have no order, and `tar.add` of a folder would sort."""
    with tarfile.open(path, mode) as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
        for found in sorted(folder.rglob("*"), reverse=True):
            tar.add(found, f"{around}{found.relative_to(folder)}", recursive=False)
    return path


def test_folder_becomes_a_dataset(folder: Path):
    data = ImageNet(root=str(folder), workers=0)
    assert (data.name, data.shape, data.classes, data.top5) == ("imagenet", (3, 224, 224), 3, True)
    assert (len(data.train), len(data.test)) == (24, 9)
    inputs, targets = data.train.batch(torch.tensor([0, 9, 23]), seed=0)
    assert (inputs.shape, inputs.dtype, inputs.is_contiguous()) == ((3, 3, 224, 224), torch.float32, True)
    assert targets.tolist() == [0, 1, 2]
    assert targets.dtype == torch.int64


def test_evaluation_is_torchvisions_transform(folder: Path):
    data = ImageNet(root=str(folder), workers=0)
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), NORMALIZE])
    path = folder / "val" / WNIDS[1] / "ILSVRC2012_val_12.JPEG"
    with Image.open(path) as image:
        torch.testing.assert_close(data.test.batch(torch.tensor([5]))[0][0], theirs(image), rtol=1e-5, atol=1e-5)


def test_sample_depends_on_seed_epoch_number(parallel: ImageNet, folder: Path):
    alone = ImageNet(root=str(folder), size=32, workers=0)
    ids = torch.arange(24)
    together, _ = parallel.train.batch(ids, seed=3, epoch=1)
    for number in (0, 7, 23):
        assert torch.equal(alone.train.batch(torch.tensor([number]), seed=3, epoch=1)[0][0], together[number])
    assert torch.equal(parallel.train.batch(ids.flip(0), seed=3, epoch=1)[0], together.flip(0))
    for other in (parallel.train.batch(ids, seed=4, epoch=1), parallel.train.batch(ids, seed=3, epoch=2)):
        assert not torch.equal(other[0], together)
    plain = ImageNet(root=str(folder), size=32, augment=False, workers=0)
    assert torch.equal(plain.train.batch(ids, seed=3)[0], parallel.train.batch(ids)[0])
    assert torch.equal(parallel.test.batch(ids[:9], seed=3)[0], parallel.test.batch(ids[:9])[0])


@pytest.mark.parametrize("around", ["", "ILSVRC2012/"])
def test_tar_gives_the_same(folder: Path, tmp_path: Path, around: str):
    data = ImageNet(root=str(packed(folder, tmp_path / "images.tar", around=around)), size=32, workers=0)
    plain = ImageNet(root=str(folder), size=32, workers=0)
    assert data.fingerprint == plain.fingerprint
    ids = torch.tensor([3, 20, 11])
    assert torch.equal(data.train.batch(ids, seed=1)[0], plain.train.batch(ids, seed=1)[0])


def test_what_is_expected_is_decoded_ahead_once(parallel: ImageNet, monkeypatch: pytest.MonkeyPatch):
    split, calls = parallel.train, []
    submit = split.decoders.submit
    monkeypatch.setattr(split.decoders, "submit", lambda *given: calls.append(len(given[0])) or submit(*given))
    ids = torch.tensor([5, 6, 7])
    split.expect(ids, seed=1, epoch=2)
    split.expect(ids, seed=1, epoch=2)
    assert calls == [3]
    ahead = split.batch(ids, seed=1, epoch=2)[0]
    assert calls == [3]
    assert torch.equal(split.batch(ids, seed=1, epoch=2)[0], ahead)
    assert calls == [3, 3]
    split.expect(ids, seed=1, epoch=3)  # another epoch is another batch
    assert torch.equal(split.batch(ids, seed=1, epoch=2)[0], ahead)
    assert calls == [3] * 4
    assert not torch.equal(split.batch(ids, seed=1, epoch=3)[0], ahead)
    assert calls == [3] * 4
    monkeypatch.setattr(streamed, "AHEAD", 4)
    split.expect(ids, seed=1, epoch=4)
    split.expect(ids, seed=1, epoch=5)  # no room
    assert calls == [3] * 5
    split.batch(ids, seed=1, epoch=4)
    split.expect(ids, seed=1, epoch=5)
    assert calls == [3] * 6
    split.batch(ids, seed=1, epoch=5)


def test_processes_that_were_started_decode_by_threads(folder: Path, monkeypatch: pytest.MonkeyPatch):
    here, _ = ImageNet(root=str(folder), size=32, workers=0).train.batch(torch.tensor([4, 5]), seed=1)
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    data = ImageNet(root=str(folder), size=32, workers=2)
    data.train.expect(torch.tensor([4, 5]), seed=1)
    assert isinstance(data.train.decoders._pool, ThreadPoolExecutor)
    assert torch.equal(data.train.batch(torch.tensor([4, 5]), seed=1)[0], here)


def test_memory_does_not_hold_images(folder: Path):
    data = ImageNet(root=str(folder), workers=0)
    before = len(pickle.dumps(data.train.places)) + data.train.nbytes
    data.train.batch(torch.arange(24), seed=0)
    assert len(pickle.dumps(data.train.places)) + data.train.nbytes == before < 5000


def test_limits_take_from_each_class(folder: Path):
    data = ImageNet(root=str(folder), limit_train=7, limit_test=3, workers=0)
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert data.test.targets.tolist() == [0, 1, 2]
    assert data.fingerprint != ImageNet(root=str(folder), workers=0).fingerprint


def test_validation_is_divided_off(parallel: ImageNet, folder: Path):
    data = ImageNet(root=str(folder), size=32, workers=0, validation=0.25)
    assert data.validation is not None
    assert (data.train.targets.bincount().tolist(), data.validation.targets.bincount().tolist()) == ([6] * 3, [2] * 3)
    names = [name for split in (data.train, data.validation) for name in split.places.names.tolist()]
    assert sorted(names) == sorted(parallel.train.places.names.tolist())
    assert len({data.fingerprint, parallel.fingerprint}) == 2
    ids = torch.arange(6)
    assert torch.equal(data.validation.batch(ids, seed=1)[0], data.validation.batch(ids)[0]), "it is not augmented"
    assert not torch.equal(data.train.batch(ids, seed=1)[0], data.train.batch(ids)[0])
    numbers = [parallel.train.places.names.tolist().index(name) for name in data.validation.places.names.tolist()]
    assert torch.equal(data.validation.batch(ids)[0], parallel.train.batch(torch.tensor(numbers))[0])


def test_fingerprint_follows_names_and_lengths(folder: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    fingerprint = ImageNet(root=str(folder), workers=0).fingerprint
    assert ImageNet(root=str(copy), workers=0).fingerprint == fingerprint
    assert ImageNet(root=str(copy), size=64, workers=0).fingerprint != fingerprint
    file = copy / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    file.write_bytes(file.read_bytes() + b"\0")
    assert ImageNet(root=str(copy), workers=0).fingerprint != fingerprint


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_image_is_named_when_used(folder: Path, tmp_path: Path, workers: int):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "val" / WNIDS[2] / "ILSVRC2012_val_21.JPEG").write_bytes(b"no image")
    data = ImageNet(root=str(copy), size=32, workers=workers)
    with pytest.raises(
        ValueError, match=r"^dataset.root=.*: val/n02105855/ILSVRC2012_val_21.JPEG is not an intact JPEG"
    ):
        data.test.batch(torch.arange(9))


def test_wrong_archives_are_named(folder: Path, tmp_path: Path):
    compressed = packed(folder, tmp_path / "images.tar.gz", "w:gz")
    with pytest.raises(ValueError, match=r"^dataset.root=.*gz: is compressed; expected: a folder or plain .tar"):
        ImageNet(root=str(compressed))
    (tmp_path / "text.tar").write_text("no tar")
    with pytest.raises(ValueError, match=r"^dataset.root=.*text.tar: is not a tar file; expected: "):
        ImageNet(root=str(tmp_path / "text.tar"))
    whole = packed(folder, tmp_path / "images.tar").read_bytes()
    for end in (len(whole) // 2, 100 + len(whole) // 2):
        (tmp_path / "cut.tar").write_bytes(whole[:end])
        with pytest.raises(
            ValueError, match=r"^dataset.root=.*cut.tar: truncated or damaged archive \(.*\); expected: "
        ):
            ImageNet(root=str(tmp_path / "cut.tar"))


def test_missing_class_is_named(folder: Path, tmp_path: Path):
    (tmp_path / "train").symlink_to(folder / "train")
    with pytest.raises(ValueError, match=r"^dataset.root=.*: no images of split 'test' \(found: train\); expected: "):
        ImageNet(root=str(tmp_path))
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / WNIDS[0]).symlink_to(folder / "val" / WNIDS[0])
    with pytest.raises(ValueError, match=r"^dataset.root=.*: split 'val' has no images of class 'n01443537'"):
        ImageNet(root=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "^dataset.size=4: .*whole numbers from 8$"),
        ({"augment": "yes"}, "^dataset.augment=yes: .*true, false$"),
        ({"workers": -1}, "^dataset.workers=-1: .*whole numbers from 0 to 1024, or null$"),
        ({"limit_train": 25}, "^dataset.limit_train=25: .*from 1 to 24, or null$"),
        ({"validation": 22}, "^dataset.validation=22: .*1 to 21 of the 24 training samples"),
        ({"limit_test": 0}, "^dataset.limit_test=0: .*from 1 to 9, or null$"),
    ],
)
def test_wrong_options_are_named(folder: Path, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ImageNet(root=str(folder), **options)


def test_left_out_files_and_pipes_are_named(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "train" / WNIDS[0] / "a.webp").touch()
    (copy / "train" / WNIDS[0] / ".hidden.JPEG").touch()
    expected = ImageNet(root=str(folder), workers=0).fingerprint
    for root in (copy, packed(copy, tmp_path / "again.tar")):
        caplog.clear()
        assert ImageNet(root=str(root), workers=0).fingerprint == expected
        assert [message.split(": ", 1)[1].split(";")[0] for message in caplog.messages] == [
            f"left out 1 files or folders: train/{WNIDS[0]}/a.webp"
        ]
    os.mkfifo(copy / "val" / WNIDS[0] / "b.JPEG")
    with pytest.raises(ValueError, match=r"^dataset.root=.*: val/n01440764/b.JPEG is not a plain file"):
        ImageNet(root=str(copy))
