"""A split whose images are decoded as they are used, by a pool of processes; memory holds where they lie, and targets.

Whoever knows which batches come next says so (`expect`), and they are decoded meanwhile.
"""

import copy
import multiprocessing
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from data import DamagedImage
from data.augment import hashed
from data.crops import Place, squares
from data.decode import follow_parent

TASK = 16  # images sent to a process at a time, at most
AHEAD = 2048  # images decoded ahead of their use, at most (300 MB at 224 pixels)


class Places(Protocol):
    """Where the images of a split lie."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Place: ...
    def subset(self, ids: Tensor) -> Self:
        """Return the places of the images numbered `ids` [n], in this order."""
        ...


class Decoders:
    """Processes that decode; they are started when the first images are asked for.

    In a process that another one started, as a worker of a run on processes is, they are threads: such a process can be
    killed at any time, and would leave its own processes behind. Pillow decodes and resizes without Python's lock.

    Args:
        workers: how many; with 0 the calling process decodes by itself.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: Executor | None = None

    def submit(self, places: list[Place], size: int, keys: list[int] | None) -> list["Future[np.ndarray]"]:
        """Start to decode; the results come in the order of `places`, see `data.crops.squares`."""
        if not self.workers:
            done: Future[np.ndarray] = Future()
            done.set_result(squares(places, size, keys))
            return [done]
        if self._pool is None:
            if multiprocessing.parent_process() is None:
                context = multiprocessing.get_context("spawn")  # a fork would copy the locks of PyTorch's threads
                self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=follow_parent)
            else:
                self._pool = ThreadPoolExecutor(self.workers)
            weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        each = min(TASK, -(-len(places) // self.workers))
        return [
            self._pool.submit(squares, places[low : low + each], size, None if keys is None else keys[low : low + each])
            for low in range(0, len(places), each)
        ]


class StreamedSplit:
    """Samples of one split, decoded as they are used; answers as `data.base.Split` does.

    Args:
        places: where the images lie.
        targets: class numbers [n], int64.
        decoders: shared by the splits of a dataset.
        size: pixels of the square images.
        mean: per channel, of pixels on the scale 0 to 1.
        std: likewise.
        augment: random crop and flip of batches that are drawn with a seed.
        label: how messages call the source.
    """

    def __init__(
        self,
        places: Places,
        targets: Tensor,
        *,
        decoders: Decoders,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: bool,
        label: str,
    ) -> None:
        self.places = places
        self.targets = targets
        self.decoders = decoders
        self.size = size
        self.augment = augment
        self.label = label
        self._shift = torch.tensor(mean).mul_(255).view(-1, 1, 1)
        self._scale = torch.tensor(std).mul_(255).reciprocal_().view(-1, 1, 1)
        self._ahead: OrderedDict[tuple[int | None, int, bytes], list[Future[np.ndarray]]] = OrderedDict()
        self._images_ahead = 0

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def device(self) -> torch.device:
        """The device on which batches are made."""
        return self.targets.device

    @property
    def nbytes(self) -> int:
        """Memory of the targets; images are not held."""
        return self.targets.nbytes

    def expect(self, ids: Tensor, *, seed: int | None = None, epoch: int = 0) -> None:
        """Announce that this batch will be asked for soon; it is decoded ahead unless `AHEAD` images are already."""
        if self.decoders.workers and self._images_ahead + len(ids) <= AHEAD:
            key = self._key(ids, seed, epoch)
            if key not in self._ahead:
                self._ahead[key] = self._submit(ids, seed, epoch)
                self._images_ahead += len(ids)

    def batch(self, ids: Tensor, *, seed: int | None = None, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Return a batch.

        Args:
            ids: sample numbers [B], int64, on any device.
            seed: None gives the middle of the images (evaluation); a number a random crop and flip of each, where the
                split augments, as a pure function of (seed, epoch, sample id).
            epoch: which pass over the data this is, counted from 0.

        Returns:
            Normalised float32 inputs [B, 3, size, size] and int64 targets [B], on the split's device.

        Raises:
            DamagedImage: an image cannot be read or is damaged.
            RuntimeError: a decoding process died.
        """
        ids = ids.cpu()
        parts = self._ahead.pop(self._key(ids, seed, epoch), None)
        try:
            if parts is None:
                parts = self._submit(ids, seed, epoch)
            else:
                self._images_ahead -= len(ids)
            images = torch.from_numpy(np.concatenate([part.result() for part in parts])).to(self.device)
        except BrokenProcessPool as error:
            message = "a decoding process died (out of memory?); dataset.workers=0 decodes without any"
            raise RuntimeError(message) from error
        except ValueError as error:
            raise DamagedImage(f"{self.label}: {error}; expected: intact JPEG or PNG images") from None
        inputs = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        return inputs.sub_(self._shift).mul_(self._scale), self.targets[ids.to(self.device)]

    def subset(self, ids: Tensor, *, augment: bool) -> Self:
        """Return a split of the samples numbered `ids` [n]; not augmented unless `augment`."""
        part = copy.copy(self)
        part.places, part.targets = self.places.subset(ids), self.targets[ids]
        part.augment = self.augment and augment
        # Sample numbers mean other images there: nothing that was announced here is for it.
        part._ahead, part._images_ahead = OrderedDict(), 0
        return part

    def to(self, device: torch.device | str) -> None:
        """Make batches on `device` from now on."""
        self.targets = self.targets.to(device)
        self._shift, self._scale = self._shift.to(device), self._scale.to(device)

    def _submit(self, ids: Tensor, seed: int | None, epoch: int) -> list["Future[np.ndarray]"]:
        ids = ids.cpu()
        keys = hashed(ids, seed=seed, epoch=epoch).tolist() if seed is not None and self.augment else None
        return self.decoders.submit([self.places[number] for number in ids.tolist()], self.size, keys)

    def _key(self, ids: Tensor, seed: int | None, epoch: int) -> tuple[int | None, int, bytes]:
        return seed, epoch, ids.cpu().numpy().tobytes()
