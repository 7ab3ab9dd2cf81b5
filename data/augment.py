"""Padding-crop and flip of whole batches, drawn by a counter-based hash, so that CPU and CUDA draw alike.

What happens to a sample is a function of (seed, epoch, sample id) alone: neither the batch it is in, nor its place
there, nor the worker that got the batch matters. The hash is the finaliser of splitmix64 (Steele, Lea and Flood,
OOPSLA 2014), in wrapping int64 arithmetic; the crop is that of He et al. (CVPR 2016, section 4.2), padded with black
as torchvision's `RandomCrop(size, padding=4)` before normalisation is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shift to the right and fill with zeros (int64 `>>` keeps the sign)."""
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mixed(bits: Tensor) -> Tensor:
    """Return `_mix` of every element."""
    bits = (bits ^ _shifted(bits, 30)).mul_(_signed(_FIRST))
    bits = (bits ^ _shifted(bits, 27)).mul_(_signed(_SECOND))
    return bits ^ _shifted(bits, 31)


def hashed(ids: Tensor, *, seed: int, epoch: int | Tensor) -> Tensor:
    """Return 64 random bits per sample.

    Args:
        ids: sample numbers, int64, any shape, any device.
        seed: any Python int; its low 64 bits count.
        epoch: any Python int, likewise; or the same as a 0-d int64 tensor on the device of `ids`.

    Returns:
        int64 of the shape of `ids`, on its device: splitmix64's output number `id` of the stream (seed, epoch).
    """
    start = _mix((seed + _GAMMA) & _MASK) + _GAMMA
    stream = _mixed(epoch + _signed(start)) if isinstance(epoch, Tensor) else _signed(_mix((start + epoch) & _MASK))
    return _mixed(ids * _signed(_GAMMA) + stream)


class PadCrop:
    """Pads images with black on all sides, cuts a window of the old size at a random place, and flips half of them.

    Args:
        pad: pixels on each side; the window is at one of (2 pad + 1)² places.
        flip: whether to mirror left and right with probability one half.
    """

    def __init__(self, pad: int, *, flip: bool) -> None:
        self.pad = pad
        self.flip = flip

    def __call__(self, images: Tensor, ids: Tensor, *, seed: int, epoch: int | Tensor) -> Tensor:
        """Return changed copies of `images` [B, channels, height, width] of any dtype, samples number `ids` [B]."""
        batch, channels, height, width = images.shape
        places = 2 * self.pad + 1
        across = width + 2 * self.pad
        bits = hashed(ids, seed=seed, epoch=epoch)
        # Row, column and flip each have bits of their own: bits 0 to 23, 24 to 47, and 63. 24 bits scaled to `places`
        # are uneven by less than places / 2^24.
        top = ((bits & 0xFFFFFF) * places) >> 24
        left = ((_shifted(bits, 24) & 0xFFFFFF) * places) >> 24
        columns = torch.arange(width, device=images.device)
        if self.flip:
            mirrored = _shifted(bits, 63)[:, None]
            columns = columns + mirrored * (width - 1 - 2 * columns)
        corner = (top * across + left)[:, None]
        rows = torch.arange(0, height * across, across, device=images.device)
        window = (rows[:, None] + (corner + columns)[:, None, :]).view(batch, 1, height * width)
        padded = F.pad(images, (self.pad,) * 4).view(batch, channels, -1)
        return padded.gather(2, window.expand(-1, channels, -1)).view(images.shape)
