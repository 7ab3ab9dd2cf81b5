import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from data import cifar
from data.cifar import CIFAR10, CIFAR100
from data.download import Published


def tree(root: Path, classes: int = 10, size: int = 32) -> Path:
    for split in ("train", "test"):
        for group in range(classes):
            place = root / split / f"{group:03}"
            place.mkdir(parents=True)
            Image.new("RGB", (size, size), (group, 0, 0)).save(place / "0.png")
    return root


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten tiny pickled batches, which torchvision is told are the published ones."""
    folder = tmp_path / "sets" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    known = {}
    for name in ["data_batch_1", "data_batch_2", "test_batch"]:
        random = np.random.default_rng(len(known))
        entry = {"data": random.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(20)]}
        (folder / name).write_bytes(pickle.dumps(entry))
        known[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[name, known[name]] for name in list(known)[:2]])
    monkeypatch.setattr(kind, "test_list", [["test_batch", known["test_batch"]]])
    meta = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta})
    return folder


def test_published_files(published: Path):
    data = CIFAR10(root=str(published.parent))
    assert (data.name, data.shape, data.classes, len(data.train), len(data.test)) == (
        "cifar10",
        (3, 32, 32),
        10,
        40,
        20,
    )
    batch = pickle.loads((published / "data_batch_2").read_bytes())
    assert torch.equal(data.train.inputs[21].flatten(), torch.from_numpy(batch["data"][1]))
    assert data.train.targets[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert CIFAR10(root=str(published)).fingerprint == data.fingerprint


@pytest.mark.parametrize("beside", [True, False])
def test_published_archive(published: Path, tmp_path: Path, beside: bool):
    expected = CIFAR10(root=str(published)).fingerprint
    path = tmp_path / "packed" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(published, published.name)
    assert CIFAR10(root=str(path.parent if beside else path)).fingerprint == expected


def test_foreign_pickle_is_never_opened(published: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    (published / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(
        ValueError, match=r"dataset.root=.*: cifar-10-batches-py/data_batch_1 is trunc.*md5 differs.*; expected:"
    ):
        CIFAR10(root=str(published.parent))
    assert not (tmp_path / "opened").exists()


def test_missing_batch_is_named(published: Path):
    (published / "test_batch").unlink()
    with pytest.raises(
        ValueError, match=r"dataset.root=.*: cifar-10-batches-py/test_batch is missing; expected: CIFAR-10's"
    ):
        CIFAR10(root=str(published))


def test_images_in_folders(tmp_path: Path):
    data = CIFAR10(root=str(tree(tmp_path / "set")))
    assert len(data.train) == 10
    assert data.train.inputs[:, 0, 5, 5].tolist() == list(range(10))
    assert data.train.targets.tolist() == list(range(10))
    assert CIFAR100(root=str(tree(tmp_path / "hundred", classes=100))).classes == 100


@pytest.mark.parametrize(
    ("kind", "classes", "size", "message"),
    [
        (CIFAR10, 9, 32, "found 9 classes; expected: 10, as in CIFAR-10"),
        (CIFAR100, 10, 32, "found 10 classes; expected: 100, as in CIFAR-100"),
        (CIFAR10, 10, 28, "images are 28x28 pixels; expected: 32x32"),
    ],
)
def test_other_data_are_refused(tmp_path: Path, kind: type, classes: int, size: int, message: str):
    with pytest.raises(ValueError, match=f"dataset.root=.*: {message}"):
        kind(root=str(tree(tmp_path / "set", classes, size)))


def test_archive_of_images_is_found_in_its_folder(tmp_path: Path):
    tree(tmp_path / "images")
    (tmp_path / "sets" / "MNIST").mkdir(parents=True)
    for name in ("cifar10-jpeg.tar.gz", "cifar100.tar.gz"):
        with tarfile.open(tmp_path / "sets" / name, "w:gz") as tar:
            tar.add(tmp_path / "images", arcname="")
    data = CIFAR10(root=str(tmp_path / "sets"))
    assert data.fingerprint == CIFAR10(root=str(tmp_path / "images")).fingerprint
    (tmp_path / "sets" / "cifar10.tar").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"holds nothing of the kind; expected: .*one cifar10\*\.tar"):
        CIFAR10(root=str(tmp_path / "sets"))


def test_nothing_there_is_named(tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=r"dataset.root=/nowhere: does not exist; expected: cifar-10-batches-py, "
    ):
        CIFAR10(root="/nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds nothing of the kind; .*cifar-100-python.tar.gz"):
        CIFAR100(root=str(tmp_path))


@pytest.fixture
def mirror(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an archive of `published`, which dcrun is told is the published one."""
    path = tmp_path / "mirror" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        tar.add(published, published.name)
    monkeypatch.setattr(CIFAR10, "published", Published(path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    return path.parent


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cifar, "PUBLISHER", "file:///nowhere")
    with pytest.raises(
        ValueError, match=r"^dataset.download=true: could not fetch CIFAR-10 into .*: No such file or dir\S+: \S+$"
    ):
        CIFAR10(root=str(tmp_path), download=True)


def test_download_fetches_only_what_is_missing(
    mirror: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    new, url = tmp_path / "new" / "folder", mirror.as_uri()
    assert CIFAR10(root=str(new), url=url).fingerprint == CIFAR10(root=str(published)).fingerprint
    monkeypatch.setattr(cifar, "fetch", None)
    assert len(CIFAR10(root=str(new), url=url).train) == 40
    assert len(CIFAR10(root=str(published.parent), download=True).train) == 40


def test_download_mends_a_damaged_batch(mirror: Path, published: Path):
    expected = CIFAR10(root=str(mirror)).fingerprint
    (published / "data_batch_2").write_bytes(b"cut")
    assert CIFAR10(root=str(published.parent), url=mirror.as_uri()).fingerprint == expected


def test_archive_that_lacks_a_batch_is_named(published: Path, tmp_path: Path):
    path = tmp_path / "packed" / "cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted(published.iterdir())[:-1]:
            tar.add(file, f"{published.name}/{file.name}")
    with pytest.raises(
        ValueError, match=r"packed: cifar-10-python.tar.gz: cifar-10-batches-py/test_batch is missing; exp"
    ):
        CIFAR10(root=str(path.parent))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r"packed: cifar-10-python.tar.gz: (truncated|is not a tar file, or a damaged)"
    ):
        CIFAR10(root=str(path.parent))


def test_chosen_cache_is_used(tmp_path: Path):
    root = str(tree(tmp_path / "set"))
    CIFAR10(root=root, cache=str(tmp_path / "mine"))
    assert len(list((tmp_path / "mine").glob("*.safetensors"))) == 1
    with pytest.raises(ValueError, match=r"^dataset.cache=5: "):
        CIFAR10(root=root, cache=5)  # type: ignore[arg-type]


def test_augments_training_batches_unless_told_not_to(tmp_path: Path):
    root = str(tree(tmp_path / "set"))
    ids = torch.arange(10)
    on, off = CIFAR10(root=root), CIFAR10(root=root, augment=False)
    assert not torch.equal(on.train.batch(ids, seed=0)[0], on.train.batch(ids)[0])
    assert torch.equal(off.train.batch(ids, seed=0)[0], off.train.batch(ids)[0])


@pytest.mark.slow
def test_all_of_cifar10_from_jpegs(shared_data: Path):
    path = shared_data / "cifar10-jpeg.tar.gz"
    if not path.is_file():
        pytest.skip(f"no real data: {path} does not exist")
    data = CIFAR10(root=str(path))
    assert (len(data.train), len(data.test)) == (50_000, 10_000)
    assert torch.bincount(data.train.targets).tolist() == [5000] * 10
    sample, _ = data.train.batch(torch.arange(0, 50_000, 10))
    assert sample.mean((0, 2, 3)).abs().max() < 0.03
    assert (sample.std((0, 2, 3)) - 1).abs().max() < 0.03
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("PIL.Image.open")  # whoever decodes again fails
        small = CIFAR10(root=str(path), limit_train=5000, limit_test=1000)
    assert torch.bincount(small.train.targets).tolist() == [500] * 10
    assert torch.bincount(small.test.targets).tolist() == [100] * 10
    assert small.fingerprint != data.fingerprint
