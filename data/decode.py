"""The half of image decoding that runs in worker processes: JPEG or PNG in, uint8 arrays out. Does not import torch."""

import io
import multiprocessing
import os
import signal
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.pixels import eight_bits, upright

# Pillow warns of large pictures and of odd metadata, two lines each, and refuses what it cannot read. The filter is set
# once, here: `warnings.catch_warnings` changes that of all threads.
warnings.filterwarnings("ignore", module="PIL")

Encoded = bytes | str  # the file's content, or its path

_MODES = {1: "L", 3: "RGB"}
_OTHERS = {b"GIF8": "GIF", b"RIFF": "WebP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP", b"\0\0\0": "HEIF"}
"""Formats by their first bytes, to name what is not read."""
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for damaged files; no two of its readers agree."""


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the parent process, which stops this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def follow_parent() -> None:
    """Leave Ctrl-C to the parent process, and end this process when that one ends, even if it is killed."""
    ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the main thread waits for work that nobody will send


def decode(files: list[tuple[str, Encoded]], channels: int, size: int | None) -> np.ndarray:
    """Decode images.

    Args:
        files: (name for messages, content or path) of each.
        channels: 1 for grey, 3 for RGB.
        size: None takes images as they are; a number resizes the shorter side to it (bicubic) and cuts out the middle
            square.

    Returns:
        uint8 array [len(files), channels, height, width].

    Raises:
        ValueError: a file is not an intact JPEG or PNG, or its size differs from the first one's.
    """
    images: list[np.ndarray] = []
    for name, file in files:
        image = _decoded(name, file, channels, size)
        if images and image.shape != images[0].shape:
            raise sizes_differ(name, image.shape, files[0][0], images[0].shape)
        images.append(image)
    return np.stack(images)


def sizes_differ(name: str, shape: tuple[int, ...], first: str, expected: tuple[int, ...]) -> ValueError:
    """Return the error for an image whose size is not that of the others."""
    found, wanted = (f"{width}x{height}" for _, height, width in (shape, expected))
    return ValueError(f"{name} is {found} pixels and {first} is {wanted}; expected: images of one size")


def _decoded(name: str, file: Encoded, channels: int, size: int | None) -> np.ndarray:
    pixels = image(name, file, channels)
    array = np.asarray(pixels if size is None else _square(pixels, size))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def image(name: str, file: Encoded, channels: int) -> Image.Image:
    """Decode one JPEG or PNG, turned as its EXIF orientation says, as 8 bits a channel (see `data.pixels`).

    Args:
        name: for messages.
        file: content or path.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: it is not an intact JPEG or PNG, is animated, or has pixels of a mode that cannot be converted.
    """
    try:
        with Image.open(Path(file) if isinstance(file, str) else io.BytesIO(file), formats=("JPEG", "PNG")) as opened:
            raw = _raw_mode(opened)
            # Cameras pack several pictures into a JPEG, of which the first is the photograph; an animation has none.
            frames = getattr(opened, "n_frames", 1) if opened.format == "PNG" else 1
            opened.load()
    except UnidentifiedImageError:  # its message holds an address, not a name
        raise ValueError(f"{name} is not an intact JPEG or PNG ({_guessed(file)})") from None
    except _DAMAGE as error:
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name} is not an intact JPEG or PNG ({found})") from None
    if frames > 1:
        raise ValueError(f"{name} is animated ({frames} frames); expected: one picture in a file")
    try:
        return upright(eight_bits(opened, _MODES[channels], raw))
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _raw_mode(opened: Image.Image) -> str | None:
    """Return Pillow's name of the pixels' form in the file, which is known only until they are loaded."""
    tiles = getattr(opened, "tile", None)
    found = tiles[0][3] if tiles else None
    return found if isinstance(found, str) else None


def _guessed(file: Encoded) -> str:
    """Say what a file holds that is neither JPEG nor PNG."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            head = opened.read(4)
    else:
        head = file[:4]
    if not head:
        return "it is empty"
    kind = next((kind for start, kind in _OTHERS.items() if head.startswith(start)), None)
    return f"it begins like a {kind} file" if kind else "of another format, or damaged"


def _square(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
