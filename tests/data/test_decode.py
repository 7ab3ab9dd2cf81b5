import io
import re
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        (b"", "it is empty"),
        (png(form="GIF"), "it begins like a GIF file"),
        (png(form="WEBP"), "it begins like a WebP file"),
        (png(form="TIFF"), "it begins like a TIFF file"),
        (png(form="BMP"), "it begins like a BMP file"),
        (b"<html>", "of another format, or damaged"),
    ],
    ids=["empty", "GIF", "WebP", "TIFF", "BMP", "page"],
)
def test_other_formats_are_named(file: bytes, wrong: str, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(file)
    for given in (file, str(tmp_path / "a.png")):
        with pytest.raises(ValueError, match=rf"a.png is not an intact JPEG or PNG .{wrong}"):
            decode([("a.png", given)], 3, None)


def test_animation_is_refused():
    frames = [Image.new("L", (4, 4), grey) for grey in (0, 100, 200)]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a.png is animated .3 frames.; expected: one picture in a file"):
        decode([("a.png", file.getvalue())], 3, None)


def test_first_of_a_cameras_pictures_is_the_photograph():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(
        file, "MPO", save_all=True, append_images=[Image.new("RGB", (4, 4), (0, 0, 200))]
    )
    (red, green, blue) = decode([("a.jpg", file.getvalue())], 3, None)[0]
    assert red.shape == (8, 8)
    assert red.min() > 190 and green.max() < 10 and blue.max() < 10


def test_mode_and_file_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("data.decode._raw_mode", lambda opened: "RGB;16B")
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG", transparency=(0, 0, 0))
    with pytest.raises(ValueError, match=r"^train/cat/1.png has a transparent colour of 16 bits; expected: "):
        decode([("train/cat/1.png", file.getvalue())], 3, None)


def test_grey_of_sixteen_bits_is_not_white(tmp_path: Path):
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "eight.png")
    for channels in (1, 3):
        sixteen, eight = (
            decode([("a", str(tmp_path / f"{name}.png"))], channels, None) for name in ("sixteen", "eight")
        )
        assert np.array_equal(sixteen, eight)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_flipped_and_cut_bytes_end_in_one_line(form: str):
    """Whatever Pillow raises for a damaged file has to be told from a fault of dcrun."""
    random, outcomes = np.random.default_rng(0), set()
    whole = [png(40, 30, mode, form) for mode in ("RGB", "L", *(("P", "RGBA", "1") if form == "PNG" else ("CMYK",)))]
    for _ in range(400):
        content = bytearray(whole[random.integers(len(whole))])
        for place in random.integers(len(content) // (1 if random.random() < 0.5 else 8), size=random.integers(1, 4)):
            content[place] = random.integers(256)
        file = bytes(content[: random.integers(1, len(content))] if random.random() < 0.3 else content)
        try:
            decode([("a.png", file)], 3, None)
            outcomes.add("read")
        except ValueError as error:
            outcomes.add("refused" if re.fullmatch("a.png .*", str(error)) else str(error))
    assert outcomes == {"read", "refused"}


def test_huge_pictures_are_refused_and_large_ones_are_silent(monkeypatch: pytest.MonkeyPatch):
    file = png(20, 20)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(ValueError, match=r"a is not an intact JPEG or PNG \(Image size \(400 pixels\) exceeds limit"):
        decode([("a", file)], 3, None)
    code = (
        "import sys; from PIL import Image; from data.decode import decode; Image.MAX_IMAGE_PIXELS = 300;"
        "print(decode([('a', sys.stdin.buffer.read())], 3, None).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], input=file, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"(1, 3, 20, 20) False\n", b"")
