import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data import mnist
from data.download import Published
from data.mnist import MNIST


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train", 40), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (raw / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (raw / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_idx_files_are_found_in_raw_folder(root: Path):
    data = MNIST(root=str(root))
    assert (data.name, data.shape, data.classes, len(data.train), len(data.test)) == ("mnist", (1, 28, 28), 10, 40, 20)
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    assert torch.equal(data.train.inputs[:, 0], torch.from_numpy(images))
    batch, targets = data.train.batch(torch.tensor([13]))
    torch.testing.assert_close(batch[0, 0], (torch.from_numpy(images[13]) / 255 - 0.1307) / 0.3081, atol=1e-5, rtol=0)
    assert targets.tolist() == [3]
    assert MNIST(root=str(root / "MNIST" / "raw")).fingerprint == data.fingerprint
    assert MNIST(root=str(root / "MNIST")).fingerprint == data.fingerprint


def test_reads_unpacked_files(root: Path):
    expected = MNIST(root=str(root)).fingerprint
    for path in (root / "MNIST" / "raw").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert MNIST(root=str(root)).fingerprint == expected


def test_limits_are_class_balanced(root: Path):
    data = MNIST(root=str(root), limit_train=20, limit_test=10)
    assert torch.bincount(data.train.targets).tolist() == [2] * 10
    assert torch.bincount(data.test.targets).tolist() == [1] * 10


def packed(content: bytes) -> bytes:
    return gzip.compress(content)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte.gz", lambda b: b[: len(b) // 2], "truncated or damaged"),
        ("train-images-idx3-ubyte.gz", lambda b: b"", "holds 0 bytes; expected: an idx file"),
        ("train-images-idx3-ubyte.gz", lambda b: b"\x89PNG not gzip", r"truncated or damaged \(Not a gzipped file"),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda b: packed(b"some other file"),
            "starts with 736f6d65; expected: an idx file",
        ),
        ("train-images-idx3-ubyte.gz", lambda b: packed(gzip.decompress(b)[:-5]), "holds 31355 bytes of data"),
        (
            "train-images-idx3-ubyte.gz",
            lambda b: packed(idx(np.zeros((40, 32, 32), np.uint8))),
            r"items of shape \(32, 32\); expected: .*28x28",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            lambda b: packed(idx(np.zeros(39, np.uint8))),
            "holds 40 images and .* 39 labels; expected: the same",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda b: packed(idx(np.full(20, 26, np.uint8))),
            "label 26; expected: labels 0 to 9",
        ),
        ("t10k-images-idx3-ubyte.gz", lambda b: packed(idx(np.zeros((0, 28, 28), np.uint8))), "holds no samples"),
    ],
)
def test_damaged_and_foreign_files_are_named(root: Path, name: str, change: Callable[[bytes], bytes], message: str):
    path = root / "MNIST" / "raw" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"dataset.root=.*{message}") as error:
        MNIST(root=str(root))
    assert name[:12] in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_are_named(root: Path, tmp_path: Path):
    (root / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"dataset.root=.*t10k-images-idx3-ubyte.gz is missing; expected"):
        MNIST(root=str(root))
    with pytest.raises(
        FileNotFoundError, match=r"dataset.root=/nowhere: does not exist; expected: a folder with MNIST/raw"
    ):
        MNIST(root="/nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="is a file; expected"):
        MNIST(root=str(tmp_path / "file"))


def test_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mnist, "PUBLISHER", "file:///nowhere")
    with pytest.raises(
        ValueError, match=r"^dataset.download=true: could not fetch MNIST into .*: No such file .*ubyte.gz$"
    ):
        MNIST(root=str(tmp_path), download=True)


def test_missing_files_come_from_a_mirror(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    raw = root / "MNIST" / "raw"
    files = [Published(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(raw.iterdir())]
    monkeypatch.setattr(mnist, "PUBLISHED", files)
    new = tmp_path / "new"
    assert MNIST(root=str(new), url=raw.as_uri()).fingerprint == MNIST(root=str(root)).fingerprint
    assert {path.name for path in (new / "MNIST" / "raw").glob("*.gz")} == {file.name for file in files}
    (new / "MNIST" / "raw" / files[2].name).unlink()
    MNIST(root=str(new), url=raw.as_uri())
    (new / "MNIST" / "raw" / files[2].name).unlink()
    (raw / files[2].name).write_bytes(b"other")
    with pytest.raises(
        ValueError, match=rf"^dataset.url=.*{files[2].name}: its md5 is \w+ .5 bytes., that of the published"
    ):
        MNIST(root=str(new), url=raw.as_uri())


@pytest.mark.parametrize("url", ["mirror", "ftp://host/x", 3])
def test_other_addresses_are_refused(root: Path, url: object):
    with pytest.raises(ValueError, match=rf"^dataset.url='?{url}'?: .*allowed: "):
        MNIST(root=str(root), url=url)  # type: ignore[arg-type]


def test_real_mnist(shared_data: Path):
    if not (shared_data / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data: {shared_data}/MNIST/raw does not exist")
    data = MNIST(root=str(shared_data))
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    sample, _ = data.train.batch(torch.arange(60_000))
    assert abs(sample.mean().item()) < 1e-3
    assert abs(sample.std().item() - 1) < 1e-3
