"""Binary and multi-class problems in LIBSVM's text format: `label index:value ...`, a sample a line.

Files may be plain or packed (.bz2, .gz, .xz). The problems of table 2 of Huo's thesis (2020) are options of this class:
`conf/dataset/` has ijcnn1, covtype and rcv1, whose files are at https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/.

Features are kept dense, in float32. A problem whose dense form is larger than `DENSE_BYTES` keeps its rows compressed
(CSR), and a batch is made dense when it is cut: every method runs on it, each at the cost of dense rows.
"""

import bz2
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_svmlight_file
from torch import Tensor

from data.base import Dataset, Split, check_count, limited, locate

DENSE_BYTES = 4 * 2**30
"""Largest dense form that is kept."""
MOST_CLASSES = 1000
"""More labels than these are not classes but numbers to regress on."""
OPENERS: dict[str, Callable[..., Any]] = {"": open, ".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}


class SparseSplit(Split):
    """A split whose samples are kept as compressed rows, on the CPU.

    Args:
        rows: a SciPy CSR matrix (n, features), float32.
        targets: class numbers [n], int64.
    """

    def __init__(self, rows: Any, targets: Tensor) -> None:
        # What says shape and type to others; it takes no memory.
        super().__init__(torch.empty(0, rows.shape[1]), targets[:0])
        self.rows = rows
        self.targets = targets

    @property
    def nbytes(self) -> int:
        """See `Split.nbytes`."""
        return self.rows.data.nbytes + self.rows.indices.nbytes + self.rows.indptr.nbytes + self.targets.nbytes

    def batch(self, ids: Tensor, *, seed: int | None = None, epoch: int | Tensor = 0) -> tuple[Tensor, Tensor]:
        """See `Split.batch`."""
        rows = torch.from_numpy(self.rows[ids.cpu().numpy()].toarray())
        return rows.to(self.inputs.device), self.targets.index_select(0, ids.to(self.targets.device))


class LibSVM(Dataset):
    """A classification problem from a LIBSVM file; labels become class numbers in their own order (−1 and 1: 0 and 1).

    Args:
        root: the file, or the folder that it lies in; None as in `locate`.
        file: the file's name in that folder, with or without its ending .bz2, .gz or .xz; None if `root` is a file.
        samples: how many samples the file must hold, None for any. It reveals a file that was cut short.
        features: length of a sample, None for the largest index in the file.
        test_share: share of the samples that is held out for testing, in [0, 1). With 0, the default, there are no test
            samples, as in the thesis, and nothing is reported of a test error.
        split_seed: of the samples held out; NumPy's PCG64.
        limit_train: class-balanced subset of so many training samples.
        limit_test: likewise of the test samples.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: wrong option; truncated, damaged or foreign file.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        file: str | None = None,
        samples: int | None = None,
        features: int | None = None,
        test_share: float = 0.0,
        split_seed: int = 0,
        limit_train: int | None = None,
        limit_test: int | None = None,
    ) -> None:
        for key, count in (("samples", samples), ("features", features)):
            if count is not None:
                check_count(f"dataset.{key}", count, none=True)
        check_count("dataset.split_seed", split_seed, least=0)
        if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share < 1:
            raise ValueError(f"dataset.test_share={test_share}: is out of range; allowed: numbers from 0 to below 1")
        place, label = locate(root)
        path = _found(place, file, label)
        rows, labels = _read(path, label, features)
        if samples is not None and len(labels) != samples:
            raise ValueError(f"{label}: {path} holds {len(labels)} samples; expected: {samples} (dataset.samples)")
        known, classes = np.unique(labels, return_inverse=True)
        if len(known) < 2 or len(known) > MOST_CLASSES or (known != np.round(known)).any():
            raise ValueError(f"{label}: {path} holds {len(known)} labels; expected: 2 to {MOST_CLASSES} whole numbers")
        held_out = np.zeros(len(labels), dtype=bool)
        order = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(labels))
        held_out[order[: round(test_share * len(labels))]] = True
        if held_out.all():
            raise ValueError(f"dataset.test_share={test_share}: leaves nothing to train on; allowed: a smaller share")
        dense = 4 * rows.shape[0] * rows.shape[1] <= DENSE_BYTES
        train = _split(rows, classes, ~held_out, limit_train, "dataset.limit_train", dense)
        test = _split(rows, classes, held_out, limit_test, "dataset.limit_test", dense)
        super().__init__(name=file or path.name.split(".")[0], classes=len(known), train=train, test=test)
        if not dense:
            digest = hashlib.sha256(self.fingerprint.encode())
            for split in (train, test):
                assert isinstance(split, SparseSplit)
                for array in (split.rows.data, split.rows.indices, split.rows.indptr, split.targets.numpy()):
                    digest.update(np.ascontiguousarray(array).data)
            self.fingerprint = digest.hexdigest()


def _found(place: Path, file: str | None, label: str) -> Path:
    if place.is_file():
        return place
    if place.is_dir() and file is not None:
        for path in (place / f"{file}{ending}" for ending in OPENERS):
            if path.is_file():
                return path
    expected = "a LIBSVM file, or its folder with dataset.file" if file is None else f"{file}, or {file}.bz2, .gz, .xz"
    found = f"holds no {file or 'file that dataset.file names'}" if place.is_dir() else "does not exist"
    raise FileNotFoundError(f"{label}: {found}; expected: {expected}")


def _read(path: Path, label: str, features: int | None) -> tuple[Any, Any]:
    opener = OPENERS.get(path.suffix, open)
    try:
        with opener(path, "rb") as file:
            rows, labels = load_svmlight_file(file, n_features=features, dtype=np.float32)[:2]  # pyright: ignore[reportArgumentType]
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{label}: {path} is truncated or damaged ({error}); expected: a whole file") from None
    except OSError as error:
        # bz2 raises a plain OSError for a file that it did not pack.
        raise ValueError(f"{label}: {path} cannot be read ({error}); expected: a LIBSVM file") from None
    except (ValueError, IndexError, OverflowError) as error:
        problem = str(error).splitlines()[0]
        raise ValueError(
            f"{label}: {path} is not a LIBSVM file ({problem}); expected: lines 'label index:value'"
        ) from None
    if not len(labels) or not rows.shape[1]:
        raise ValueError(f"{label}: {path} holds no samples; expected: lines 'label index:value ...'")
    if not np.isfinite(rows.data).all():
        raise ValueError(f"{label}: {path} holds a value that is not finite; expected: finite numbers")
    return rows.tocsr(), labels


def _split(rows: Any, classes: Any, which: Any, limit: int | None, key: str, dense: bool) -> Split:
    chosen = torch.from_numpy(np.flatnonzero(which))
    targets = torch.from_numpy(classes.astype(np.int64))[chosen]
    if len(targets):
        chosen, targets = limited(chosen, targets, limit, key)
    elif limit is not None:
        raise ValueError(f"{key}={limit}: there are no such samples; allowed: null, or dataset.test_share above 0")
    part = rows[chosen.numpy()]
    return Split(torch.from_numpy(part.toarray()), targets) if dense else SparseSplit(part, targets)
