import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.pixels import eight_bits, upright

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def opened(picture: Image.Image, **options: object) -> Image.Image:
    """Save as PNG and read back: modes and transparency then are those that a file has."""
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    again = Image.open(file)
    again.load()
    return again


def colours(picture: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()]


def greys(picture: Image.Image) -> list[int]:
    return np.asarray(picture).reshape(-1).tolist()


def palette(pixels: list[int], **info: object) -> Image.Image:
    picture = Image.new("P", (len(pixels), 1))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255, 255, 255, 255])
    picture.putdata(pixels)
    picture.info.update(info)
    return picture


def of(mode: str, *pixels: Any) -> Image.Image:
    picture = Image.new(mode, (len(pixels), 1))
    picture.putdata(list(pixels))
    return picture


KNOWN = [
    ("RGB", of("RGB", (1, 2, 3), WHITE), [(1, 2, 3), WHITE]),
    ("L", of("L", 0, 7, 255), [BLACK, (7, 7, 7), WHITE]),
    ("1", of("1", 0, 255), [BLACK, WHITE]),
    ("P", palette([1, 2, 3, 0]), [(255, 0, 0), (0, 0, 255), WHITE, BLACK]),
    ("P, one index transparent", palette([1, 0, 2], transparency=0), [(255, 0, 0), WHITE, (0, 0, 255)]),
    ("P, alpha of each index", palette([1, 0], transparency=bytes([0, 255])), [(255, 0, 0), WHITE]),
    ("RGBA", of("RGBA", (9, 8, 7, 255), (9, 8, 7, 0), (0, 0, 0, 51)), [(9, 8, 7), WHITE, (204, 204, 204)]),
    ("LA", of("LA", (9, 255), (9, 0), (0, 51)), [(9, 9, 9), WHITE, (204, 204, 204)]),
    ("CMYK", of("CMYK", (0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0)), [WHITE, BLACK, (0, 255, 255)]),
    ("YCbCr", of("YCbCr", (0, 128, 128), (77, 128, 128), (255, 128, 128)), [BLACK, (77, 77, 77), WHITE]),
    ("HSV", of("HSV", (0, 0, 0), (0, 255, 255), (0, 0, 255)), [BLACK, (255, 0, 0), WHITE]),
    ("RGBX", of("RGBX", (1, 2, 3, 0)), [(1, 2, 3)]),
    ("L, one grey transparent", opened(of("L", 7, 8), transparency=7), [WHITE, (8, 8, 8)]),
    (
        "RGB, one colour transparent",
        opened(of("RGB", (1, 2, 3), (1, 2, 4)), transparency=(1, 2, 3)),
        [WHITE, (1, 2, 4)],
    ),
    ("1, black transparent", opened(of("1", 0, 255), transparency=0), [WHITE, WHITE]),
    ("RGBa", of("RGBA", (9, 8, 7, 255), (9, 8, 7, 0)).convert("RGBa"), [(9, 8, 7), WHITE]),
    ("La", of("LA", (9, 255), (9, 0)).convert("La"), [(9, 9, 9), WHITE]),
]


@pytest.mark.parametrize(("picture", "expected"), [known[1:] for known in KNOWN], ids=[known[0] for known in KNOWN])
def test_known_pixels_of_every_mode(picture: Image.Image, expected: list[tuple[int, ...]]):
    assert (
        colours(eight_bits(picture, "RGB", "L" if picture.mode == "L" else "1" if picture.mode == "1" else None))
        == expected
    )
    if all(len(set(pixel)) == 1 for pixel in expected):
        assert greys(eight_bits(picture, "L", "1" if picture.mode == "1" else None)) == [pixel[0] for pixel in expected]


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_keep_their_high_byte(mode: str):
    order = ">u2" if mode.endswith("B") else "<u2" if mode != "I;16N" else "=u2"
    values = np.array([0, 255, 256, 0x80FF, 65535], order)
    picture = Image.frombytes(mode, (5, 1), values.tobytes())
    assert greys(eight_bits(picture, "L")) == [0, 0, 1, 0x80, 255]
    assert colours(eight_bits(picture, "RGB"))[3] == (0x80,) * 3


def test_sixteen_bits_are_the_eight_bits_they_came_from():
    values = np.arange(256, dtype=np.uint16)
    for scale in (256, 257):
        picture = opened(Image.fromarray(values[None] * scale))
        assert picture.mode == "I;16"
        assert greys(eight_bits(picture, "L")) == list(range(256))


def test_transparent_grey_of_sixteen_bits():
    picture = Image.fromarray(np.array([[0x1234, 0x1235]], np.uint16))
    picture.info["transparency"] = 0x1234
    assert greys(eight_bits(picture, "L")) == [255, 0x12]


@pytest.mark.parametrize(("bits", "raw"), [(2, "L;2"), (4, "L;4")])
def test_transparent_grey_of_few_bits(bits: int, raw: str):
    white = 2**bits - 1
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", 1)),
        (b"IDAT", zlib.compress(bytes([0, (1 << (8 - bits)) | (white << (8 - 2 * bits))]))),
        (b"IEND", b""),
    ]
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    with Image.open(io.BytesIO(file)) as picture:
        assert picture.tile[0][3] == raw
        picture.load()
    assert greys(picture) == [255 // white, 255]
    assert greys(eight_bits(picture, "L", raw)) == [255, 255]


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_modes_of_unknown_range_are_refused(mode: str):
    with pytest.raises(ValueError, match=f"has pixels of mode {mode}, whose range is not known; expected: 1 to 8 bits"):
        eight_bits(Image.new(mode, (1, 1)), "RGB")


def test_transparent_colour_of_sixteen_bits_is_refused():
    picture = of("RGB", (1, 2, 3))
    picture.info["transparency"] = (1, 2, 3)
    with pytest.raises(ValueError, match="transparent colour of 16 bits; expected: 8 bits, or an alpha channel"):
        eight_bits(picture, "RGB", "RGB;16B")


def test_opaque_pictures_are_as_without_alpha():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    plain = Image.fromarray(pixels)
    for mode in ("RGB", "L"):
        assert np.array_equal(np.asarray(eight_bits(plain.convert("RGBA"), mode)), np.asarray(plain.convert(mode)))


ORIENTED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
    0: [[1, 2, 3], [4, 5, 6]],
    9: [[1, 2, 3], [4, 5, 6]],
}
"""How a viewer shows the rows 1 2 3 and 4 5 6 that are stored with an orientation."""


@pytest.mark.parametrize("orientation", sorted(ORIENTED))
def test_pictures_are_turned_upright(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = opened(Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8)), exif=exif)
    assert np.asarray(upright(picture)).tolist() == ORIENTED[orientation]


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0no TIFF", b"Exif\0\0II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff"]
)
def test_unreadable_orientation_says_nothing(exif: bytes):
    picture = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    picture.info["exif"] = exif
    assert np.asarray(upright(picture)).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("odd", [(282, (-1, 0)), (282, 5), (34853, {1: (3, 0)}), (37510, "a")], ids=str)
def test_odd_values_beside_the_orientation_do_no_harm(odd: tuple[int, object]):
    """Pillow's `exif_transpose` writes all of them anew, and fails (Pillow 8965, 4238, 8605)."""
    picture = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    exif[odd[0]] = odd[1]
    assert np.asarray(upright(picture)).tolist() == ORIENTED[6]
