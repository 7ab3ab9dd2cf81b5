"""A picture of any Pillow mode as 8 bits a channel: converted by the range of its mode, or refused by name.

No conversion stretches or clips what a mode can hold. 16-bit grey keeps its high byte, as Pillow reads 16-bit colour,
so that 65535 is white. Transparent pixels lie on white. Modes whose range nobody knows (32-bit, float) are refused.
Does not import torch.
"""

import struct

import numpy as np
from PIL import Image

BACKGROUND = 255
"""What shines through transparent pixels: white."""
ALLOWED = "1 to 8 bits or 16-bit grey, palette, RGB, CMYK, YCbCr, HSV, each with alpha where it has one"

_PLAIN = ("L", "RGB")
_CONVERTED = ("1", "P", "CMYK", "YCbCr", "HSV", "RGBX")
_ALPHA = {"RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
"""Modes with alpha, and what they are converted to first (premultiplied ones have one way only)."""
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""What one step of a grey value of few bits is on the scale 0 to 255, by Pillow's raw mode."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright; other numbers are reserved, and viewers show it as it is."""
_EXIF_DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, struct.error)


def eight_bits(picture: Image.Image, mode: str, raw: str | None = None) -> Image.Image:
    """Convert a loaded picture.

    Args:
        picture: of any mode.
        mode: "L" or "RGB".
        raw: Pillow's raw mode of the file's pixels, which says how many bits a transparent colour has.

    Raises:
        ValueError: naming the mode and what is allowed, when no conversion is known to be right.
    """
    key = picture.info.get("transparency")
    if picture.mode == mode and key is None:
        return picture
    if picture.mode in _SIXTEEN:
        return _from_sixteen(picture, key).convert(mode)
    if picture.mode in _ALPHA or (picture.mode == "P" and _has_transparency(picture)):
        first = _ALPHA.get(picture.mode, "RGBA")
        return _on_background(picture.convert(first).convert("RGBA")).convert(mode)
    if picture.mode in _PLAIN or picture.mode in _CONVERTED:
        if key is None or picture.mode == "P":
            return picture.convert(mode)
        return _without_key(picture, key, raw).convert(mode)
    raise ValueError(f"has pixels of mode {picture.mode}, whose range is not known; expected: {ALLOWED}")


def upright(picture: Image.Image) -> Image.Image:
    """Turn a loaded picture as its EXIF orientation says; an EXIF block that cannot be read says nothing."""
    try:
        orientation = picture.getexif().get(0x0112, 1)
    except _EXIF_DAMAGE:
        return picture
    # Pillow's own `exif_transpose` also writes the block anew, and fails on any odd value in it.
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def _has_transparency(picture: Image.Image) -> bool:
    return picture.has_transparency_data


def _on_background(picture: Image.Image) -> Image.Image:
    """Lay an RGBA picture on the background; opaque pixels stay as they are, to the bit."""
    below = Image.new("RGBA", picture.size, (BACKGROUND,) * 3 + (255,))
    return Image.alpha_composite(below, picture).convert("RGB")


def _from_sixteen(picture: Image.Image, key: object) -> Image.Image:
    values = np.asarray(picture).astype(np.uint16)  # in the machine's byte order, whichever the mode has
    grey = (values >> 8).astype(np.uint8)
    if key is not None:
        grey[values == key] = BACKGROUND
    return Image.fromarray(grey)


def _without_key(picture: Image.Image, key: object, raw: str | None) -> Image.Image:
    """Replace the one colour that a PNG declares to be transparent."""
    if raw == "RGB;16B":
        # Pillow keeps 8 of its 16 bits, which other colours may share.
        raise ValueError("has a transparent colour of 16 bits; expected: 8 bits, or an alpha channel")
    grey = picture.mode != "RGB"
    values = np.array(picture.convert("L") if grey else picture)
    wanted = np.asarray(key) * (_GREY_STEPS.get(raw or "", 1) if grey else 1)
    hit = values == wanted if grey else (values == wanted).all(-1)
    values[hit] = BACKGROUND
    return Image.fromarray(values)
