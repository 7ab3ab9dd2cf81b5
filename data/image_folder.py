"""Images in a folder `split/class/*.jpg|png`, or a `.tar[.gz]` of one: decoded once, in parallel, then cached."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from data.archive import LAYOUT, ImageFile, Tree, opened
from data.augment import PadCrop
from data.base import MOST_WORKERS, Dataset, Split, check_count, check_flag, limited, locate
from data.cache import Tensors, cached, check_cache
from data.decode import Encoded, decode, ignore_interrupts, sizes_differ

CHUNK = 128  # images sent to a process at a time
ALONE = 2000  # fewer images than this are decoded here: starting processes takes longer
IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


class ImageFolder(Dataset):
    """Any images sorted into folders by split and class; classes are numbered in alphabetical order.

    Args:
        root: folder that holds `train/<class>/*.jpg|png` and `test/<class>/...` (or `val/`), or a tar of one; None as
            in `locate`.
        size: pixels; resizes the shorter side to it and cuts the middle square. None: all images have one size already.
        channels: 3 (RGB) or 1 (grey); images are converted.
        mean: per channel, of pixels on the scale 0 to 1; None means ImageNet's.
        std: likewise.
        augment: padding-crop (4 pixels) and horizontal flip of training batches.
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`.
        workers: processes that decode; None means one per core.
        cache: folder of the decoded images; None as in `data.cache`.

    Raises:
        FileNotFoundError: `root` does not exist.
        ValueError: wrong option; damaged or foreign file; missing split or class; images of different sizes.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        size: int | None = None,
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: bool = False,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
        workers: int | None = None,
        cache: str | None = None,
    ) -> None:
        place, label = locate(root)
        if channels not in IMAGENET:
            raise ValueError(f"dataset.channels={channels}: is not allowed; allowed: 1, 3")
        if size is not None:
            check_count("dataset.size", size, none=True)
        centre = _per_channel("mean", mean, IMAGENET[channels][0])
        spread = _per_channel("std", std, IMAGENET[channels][1])
        if min(spread) <= 0:
            raise ValueError(f"dataset.std={std}: is not positive; allowed: positive numbers, or null")
        crop = PadCrop(4, flip=True) if check_flag("dataset.augment", augment) else None
        folder = check_cache(cache)
        if not place.exists():
            raise FileNotFoundError(f"{label}: no such file or folder; expected: a folder or .tar[.gz] of {LAYOUT}")
        tensors = image_tensors(place, label, channels=channels, size=size, workers=workers, cache=folder)
        train = limited(tensors["train_inputs"], tensors["train_targets"], limit_train, "dataset.limit_train")
        test = limited(tensors["test_inputs"], tensors["test_targets"], limit_test, "dataset.limit_test")
        super().__init__(
            name="image_folder",
            classes=int(tensors["train_targets"].max()) + 1,
            train=Split(*train, mean=centre, std=spread, augment=crop),
            test=Split(*test, mean=centre, std=spread),
            validation=validation,
        )


def _per_channel(key: str, value: object, usual: Sequence[float]) -> Sequence[float]:
    if value is None:
        return usual
    if isinstance(value, Sequence) and len(value) == len(usual) and all(isinstance(x, int | float) for x in value):
        return [float(x) for x in value]
    raise ValueError(f"dataset.{key}={value}: does not fit; allowed: a list of {len(usual)} numbers, or null")


def image_tensors(
    place: Path, label: str, *, channels: int, size: int | None, workers: int | None, cache: Path | None
) -> Tensors:
    """Return the images of a folder or archive, from the cache if that is intact (see `data.cache.cached`).

    Returns:
        `train_inputs` [n, channels, height, width] uint8, `train_targets` [n] int64, `test_inputs`, `test_targets`.

    Raises:
        ValueError: as `archive.opened`, and for an image that is damaged or of another size than the others.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0))
    check_count("dataset.workers", workers, most=MOST_WORKERS, none=True)

    def build() -> Tensors:
        with opened(place, label) as tree:
            return decoded(tree, label, channels=channels, size=size, workers=workers)

    return cached(place, {"channels": channels, "size": size}, build, cache)


def decoded(tree: Tree, label: str, *, channels: int, size: int | None, workers: int) -> Tensors:
    """Decode both splits of `tree`; see `image_tensors`."""
    first = tree.train[0]
    try:
        shape = decode([(first.name, first.read())], channels, size).shape[1:]
        order = [
            (split, i, file) for split, files in enumerate((tree.train, tree.test)) for i, file in enumerate(files)
        ]
        order.sort(key=lambda place: place[2].position)  # a compressed archive can only be read forwards
        splits = tuple(np.empty((len(files), *shape), np.uint8) for files in (tree.train, tree.test))
        with progress_bar() as progress:
            task = progress.add_task(f"decoding {label.split('=')[-1]}", total=len(order))
            for chunk, images in _in_parallel(order, channels, size, workers):
                if images.shape[1:] != shape:
                    raise sizes_differ(chunk[0][2].name, images.shape[1:], first.name, shape)
                for (split, i, _), image in zip(chunk, images, strict=True):
                    splits[split][i] = image
                progress.advance(task, len(chunk))
    except ValueError as error:
        hint = "; dataset.size=<pixels> makes them so" if "of one size" in str(error) else ""
        raise ValueError(f"{label}: {error}{hint}") from None
    return {
        "train_inputs": torch.from_numpy(splits[0]),
        "train_targets": torch.tensor([file.target for file in tree.train]),
        "test_inputs": torch.from_numpy(splits[1]),
        "test_targets": torch.tensor([file.target for file in tree.test]),
    }


Place = tuple[int, int, ImageFile]  # split, place in the split, file


def _in_parallel(
    order: list[Place], channels: int, size: int | None, workers: int
) -> Iterator[tuple[list[Place], np.ndarray]]:
    chunks = (order[start : start + CHUNK] for start in range(0, len(order), CHUNK))
    if workers == 1 or len(order) < ALONE or multiprocessing.current_process().daemon:  # a daemon may have no children
        for chunk in chunks:
            yield chunk, decode(_read(chunk), channels, size)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of PyTorch's threads
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=ignore_interrupts)
    waiting: deque[tuple[list[Place], Future[np.ndarray]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(decode, _read(chunk), channels, size)))
            if len(waiting) > 4 * workers:  # bounds the memory of what was read and decoded, but not yet taken
                done, result = waiting.popleft()
                yield done, result.result()
        for done, result in waiting:
            yield done, result.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a decoding process died (out of memory?); dataset.workers=1 decodes without processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _read(chunk: list[Place]) -> list[tuple[str, Encoded]]:
    return [(file.name, file.read()) for _, _, file in chunk]


def progress_bar() -> Progress:
    """Return a bar for work on so many samples, shown on a terminal alone."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
