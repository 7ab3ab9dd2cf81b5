"""Features of photographs: what they are by definition, that they are exact, and that they are made once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data import cifar_features
from data.cifar_features import CIFARFeatures, filters, sums

FINGERPRINT = "db069fe40228d8b0f68f5ff5c9f7568aaa1714c5bed1276b156215ee39e7a6e5"
"""Of 20,000 training and 4,000 test images, as Pillow's own decoder reads the photographs."""


def noise(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight and two images a class, of noise that is brighter from class to class."""
    folder = tmp_path_factory.mktemp("cifar")
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 2)):
        for label in range(10):
            place = folder / split / f"{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 25 * (label + 1), (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def test_filters_are_whole_numbers_of_sum_zero():
    w = filters(0)
    assert w.shape == (96, 108)
    assert torch.equal(w, w.round())
    assert torch.equal(w.sum(1), torch.zeros(96))
    assert float(w.std()) == pytest.approx(64, rel=0.02)
    assert torch.equal(filters(0), w)
    assert not torch.equal(filters(1), w)
    # Below this, float32 holds every whole number, and so every partial sum of a response.
    assert float(w.abs().sum(1).max()) * 255 < 2**24


def test_features_are_those_of_numpy():
    """The definition, patch by patch in float64."""
    images, w = noise(2), filters(0)
    kernels, expected = w.double().numpy(), np.zeros((2, 96, 2, 2))
    for image, pixels in enumerate(images.double().numpy()):
        for row in range(27):
            for column in range(27):
                x = pixels[:, row : row + 6, column : column + 6].ravel()
                centred = x - x.mean()
                length = np.sqrt(centred @ centred + 10 * 108)
                cosines = kernels @ centred / np.linalg.norm(kernels, axis=1) / length
                steps = np.rint(np.maximum(0, 1024 * cosines - 100))
                for vertical in {row // 14, row // 13} & {0, 1}:
                    for horizontal in {column // 14, column // 13} & {0, 1}:
                        expected[image, :, vertical, horizontal] += steps
    found = sums(images, w).numpy()
    # Of 196 places a few lie so near a half step that float32 rounds them to the other side.
    np.testing.assert_allclose(found, expected.reshape(2, 384), rtol=0, atol=3)
    assert expected.mean() > 1000


def test_bits_depend_on_no_batch_and_no_threads():
    images, w = noise(12), filters(0)
    together = sums(images, w)
    assert torch.equal(together, together.round())
    assert torch.equal(torch.cat([sums(image[None], w) for image in images]), together)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads % 2 + 1)
        assert torch.equal(sums(images, w), together)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_bits_depend_on_no_instruction_set():
    images = noise(12)
    images[:6, :, :16] = 7  # flat patches too
    plain = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
    program = (
        "import sys, torch; from data.cifar_features import filters, sums\n"
        "assert torch.backends.cpu.get_cpu_capability() == 'DEFAULT'\n"
        "images = torch.frombuffer(bytearray(sys.stdin.buffer.read()), dtype=torch.uint8).view(-1, 3, 32, 32)\n"
        "sys.stdout.buffer.write(sums(images, filters(0)).numpy().tobytes())"
    )
    given = images.numpy().tobytes()
    done = subprocess.run([sys.executable, "-c", program], input=given, capture_output=True, env=plain, check=True)
    assert done.stdout == sums(images, filters(0)).numpy().tobytes()


def test_sums_of_products_are_exact():
    patches = torch.nn.functional.unfold(noise(3).double(), 6).long()
    whole = torch.einsum("ft,btl->bfl", filters(0).long(), patches)
    assert torch.equal((filters(0) @ patches.float()).long(), whole)


def test_it_is_cifar10_standardised(root: Path):
    data = CIFARFeatures(root=str(root))
    assert (data.name, data.shape, data.classes) == ("cifar_features", (384,), 10)
    assert (len(data.train), len(data.test)) == (80, 20)
    assert data.train.targets.tolist() == [label for label in range(10) for _ in range(8)]
    torch.testing.assert_close(data.train.inputs.mean(0), torch.zeros(384), rtol=0, atol=1e-5)
    torch.testing.assert_close(data.train.inputs.std(0, correction=0), torch.ones(384), rtol=1e-5, atol=0)
    inputs, _ = data.train.batch(torch.tensor([3]))
    assert torch.equal(inputs, data.train.inputs[3:4])


def test_limits_take_the_same_features(root: Path):
    whole, part = CIFARFeatures(root=str(root)), CIFARFeatures(root=str(root), limit_train=20, limit_test=10)
    assert torch.bincount(part.train.targets).tolist() == [2] * 10
    assert torch.equal(part.train.inputs[:2], whole.train.inputs[:2])
    assert torch.equal(part.test.inputs, whole.test.inputs[::2])
    assert part.fingerprint != whole.fingerprint


def test_features_are_computed_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = CIFARFeatures(root=str(root), cache=str(tmp_path))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2, "the photographs and their features"
    with monkeypatch.context() as patch:
        patch.delattr(cifar_features, "sums")
        again = CIFARFeatures(root=str(root), cache=str(tmp_path))
        assert again.fingerprint == first.fingerprint
        with pytest.raises(NameError):
            CIFARFeatures(root=str(root), cache=str(tmp_path), seed=1)
    other = CIFARFeatures(root=str(root), cache=str(tmp_path), seed=1)
    assert other.fingerprint != first.fingerprint


def test_a_damaged_cache_is_made_anew(root: Path, tmp_path: Path):
    first = CIFARFeatures(root=str(root), cache=str(tmp_path))
    for path in tmp_path.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert CIFARFeatures(root=str(root), cache=str(tmp_path)).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, r"^dataset.seed=-1: "),
        ({"download": 1}, r"^dataset.download=1: is neither true nor false"),
        ({"workers": 0}, r"^dataset.workers=0: "),
        ({"limit_train": 81}, r"^dataset.limit_train=81: "),
        ({"cache": 5}, r"^dataset.cache=5: "),
    ],
)
def test_wrong_options_are_named(root: Path, wrong: dict[str, object], message: str):
    CIFARFeatures(root=str(root))
    options: dict[str, object] = {"root": str(root), **wrong}
    with pytest.raises(ValueError, match=message):
        CIFARFeatures(**options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_all_of_cifar10_has_the_same_features_everywhere(shared_data: Path):
    path = shared_data / "cifar10-jpeg.tar.gz"
    if not path.is_file():
        pytest.skip(f"no real data: {path} does not exist")
    data = CIFARFeatures(root=str(path), limit_train=20_000, limit_test=4000)
    assert data.fingerprint == FINGERPRINT
    assert data.train.inputs.mean().abs() < 0.01
    assert (data.test.inputs.std() - 1).abs() < 0.02
