import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.decode import decode


def png(width: int = 6, height: int = 4, mode: str = "RGB", form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


def test_pixels_are_those_of_the_file(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(png())
    images = decode([("a", png()), ("b", str(tmp_path / "a.png"))], 3, None)
    assert images.shape == (2, 3, 4, 6)
    assert images.dtype == np.uint8
    assert (images == pixels.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_modes_are_converted(mode: str):
    assert decode([("a", png(mode=mode))], 3, None).shape == (1, 3, 4, 6)
    assert decode([("a", png(mode=mode))], 1, None).shape == (1, 1, 4, 6)


@pytest.mark.parametrize(("width", "height"), [(6, 4), (4, 6), (50, 31), (8, 8)])
def test_size_makes_squares(width: int, height: int):
    assert decode([("a", png(width, height))], 3, 8).shape == (1, 3, 8, 8)


def test_size_keeps_the_middle():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    assert (decode([("a", file.getvalue())], 3, 8) == 200).all()


@pytest.mark.parametrize("file", [b"", b"no image", png()[:60], png(form="JPEG")[:200], png(form="GIF")])
def test_damaged_and_foreign_files_are_named(file: bytes):
    with pytest.raises(ValueError, match=r"train/cat/1.png is not an intact JPEG or PNG \(.+\)") as error:
        decode([("train/cat/1.png", file)], 3, None)
    assert "\n" not in str(error.value)
    assert "0x" not in str(error.value)


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="b is 5x4 pixels and a is 6x4; expected: images of one size"):
        decode([("a", png()), ("b", png(5, 4))], 3, None)
