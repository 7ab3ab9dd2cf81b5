"""Problems in LIBSVM's text format, of classes or of numbers: `label index:value ...`, a sample a line.

Files may be plain or packed (.bz2, .gz, .xz). The problems of table 2 of Huo's thesis (2020) are options of this class:
`conf/dataset/` has ijcnn1, covtype and rcv1, whose files are at https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/.

Features are kept dense, in float32. A problem whose dense form is larger than `DENSE_BYTES` keeps its rows compressed
(CSR). Every method runs on it: dual methods take products with compressed rows, others cut dense batches
(`data.sparse`).
"""

import bz2
import gzip
import logging
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_svmlight_file

from data.base import Dataset, Split, check_count, limited, locate
from data.sparse import DENSE_BYTES, SparseSplit, fingerprint

log = logging.getLogger(__name__)

MOST_CLASSES = 1000
"""More labels than these are not classes but numbers to regress on."""
MOST_FEATURES = 2**26
"""A larger index is damage, unless `features` allows it: the largest published problem (KDD 2012) has 54,686,452."""
BOM = b"\xef\xbb\xbf"
TARGETS = ("classes", "numbers")
OPENERS: dict[str, Callable[..., Any]] = {"": open, ".bz2": bz2.open, ".gz": gzip.open, ".xz": lzma.open}


class LibSVM(Dataset):
    """A problem from a LIBSVM file.

    Labels become class numbers in their own order (−1 and 1: 0 and 1). Others than −1 and 1 are whole numbers, and a
    warning says which class each becomes. Of a regression they are what the file says, rounded to float32. It is not
    guessed which of both a file is: whole numbers, as ages, may be either.

    Indices count from 1, or from 0 if one of them is 0. Comments (`#`), blank lines, a byte-order mark and Windows line
    ends are passed over; so is `qid:`, with a warning.

    Args:
        root: the file, or the folder that it lies in; None as in `locate`.
        file: the file's name in that folder, with or without its ending .bz2, .gz or .xz; None if `root` is a file.
        samples: how many samples the file must hold, None for any. It reveals a file that was cut short.
        features: length of a sample, None for the largest index in the file.
        targets: "classes", or "numbers" for a regression.
        test_share: share of the samples that is held out for testing, in [0, 1). With 0, the default, there are no test
            samples, as in the thesis, and nothing is reported of a test error.
        split_seed: of the samples held out; NumPy's PCG64.
        limit_train: class-balanced subset of so many training samples; of a regression, the first so many.
        limit_test: likewise of the test samples.
        validation: the validation split, see `data.validation.divided`.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: wrong option; truncated, damaged or foreign file, with the number of the line at fault.
    """

    def __init__(
        self,
        *,
        root: str | None = None,
        file: str | None = None,
        samples: int | None = None,
        features: int | None = None,
        targets: str = "classes",
        test_share: float = 0.0,
        split_seed: int = 0,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
    ) -> None:
        for key, count in (("samples", samples), ("features", features)):
            if count is not None:
                check_count(f"dataset.{key}", count, none=True)
        check_count("dataset.split_seed", split_seed, least=0)
        if targets not in TARGETS:
            raise ValueError(f"dataset.targets={targets}: is unknown; allowed: {', '.join(TARGETS)}")
        if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share < 1:
            raise ValueError(f"dataset.test_share={test_share}: is out of range; allowed: numbers from 0 to below 1")
        if file is not None and (not isinstance(file, str) or not file or "\0" in file):
            raise ValueError(f"dataset.file={file!r}: is not the name of a file; allowed: a name, or null")
        place, label = locate(root)
        path = _found(place, file, label)
        rows, labels = _read(path, label, features)
        if samples is not None and len(labels) != samples:
            raise ValueError(f"{label}: {path} holds {len(labels)} samples; expected: {samples} (dataset.samples)")
        known, values = (_classes if targets == "classes" else _numbers)(labels, path, label)
        held_out = np.zeros(len(labels), dtype=bool)
        order = np.random.Generator(np.random.PCG64(split_seed)).permutation(len(labels))
        held_out[order[: round(test_share * len(labels))]] = True
        if held_out.all():
            raise ValueError(f"dataset.test_share={test_share}: leaves nothing to train on; allowed: a smaller share")
        dense = 4 * rows.shape[0] * rows.shape[1] <= DENSE_BYTES
        train = _split(rows, values, ~held_out, limit_train, "dataset.limit_train", dense)
        test = _split(rows, values, held_out, limit_test, "dataset.limit_test", dense)
        name = file or path.name.split(".")[0]
        super().__init__(name=name, classes=known, train=train, test=test, validation=validation)
        if not dense:
            self.fingerprint = fingerprint(self.fingerprint, self.splits)


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


class _Lines:
    """The lines of a file, for scikit-learn's reader, and the number of the line it is at.

    Args:
        file: opened for bytes.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.number = 0
        self.queries = False

    def read(self, size: int = -1) -> bytes:
        """Read bytes; scikit-learn takes what has this method for an open file."""
        return self.file.read(size)

    def close(self) -> None:
        """Leave the file to who opened it."""

    def __iter__(self) -> Iterator[bytes]:
        for line in self.file:
            self.number += 1
            if self.number == 1:
                line = line.removeprefix(BOM)
            if b"qid:" in line:
                self.queries = True
            # Python reads 1_0 as 10, which no other reader of the format does.
            if b"_" in line and b"_" in line.split(b"#", 1)[0]:
                raise ValueError("'_' in a number")
            yield line


def _read(path: Path, label: str, features: int | None) -> tuple[Any, Any]:
    """Return the samples as CSR rows, and their labels."""
    opener = OPENERS.get(path.suffix, open)
    lines = _Lines(None)
    try:
        with opener(path, "rb") as file:
            lines = _Lines(file)
            # Any index is taken here: a number of features would make scikit-learn's error one without a line.
            rows, labels = load_svmlight_file(lines, dtype=np.float32)[:2]  # pyright: ignore[reportArgumentType]
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{label}: {path} is truncated or damaged ({error}); expected: a whole file") from None
    except OSError as error:
        # bz2 raises a plain OSError for a file that it did not pack.
        raise ValueError(f"{label}: {path} cannot be read ({error}); expected: a LIBSVM file") from None
    except (ValueError, IndexError, OverflowError) as error:
        problem = str(error).splitlines()[0][:200]
        if "unpack" in problem:  # Python's words for an item without a colon
            problem = "no colon between index and value"
        raise ValueError(
            f"{label}: {path}, line {lines.number}: is not a LIBSVM file ({problem}); expected: lines "
            "'label index:value ...' with rising indices"
        ) from None
    if not len(labels) or not rows.nnz:
        raise ValueError(f"{label}: {path} holds no samples; expected: lines 'label index:value ...'")
    if lines.queries:
        log.warning("%s: %s groups its lines by qid, which a classification does not use", label, path)
    rows = rows.tocsr()
    most = features or MOST_FEATURES
    if rows.shape[1] > most:
        at = _line_of(path, int(np.searchsorted(rows.indptr, np.argmax(rows.indices >= most), side="right")) - 1)
        allowed = f"up to {most} features (dataset.features{'' if features else ' allows more'})"
        raise ValueError(f"{label}: {path}, line {at}: has feature {rows.shape[1]}; expected: {allowed}")
    if not np.isfinite(rows.data).all():
        at = _line_of(path, int(np.searchsorted(rows.indptr, np.argmin(np.isfinite(rows.data)), side="right")) - 1)
        raise ValueError(f"{label}: {path}, line {at}: a value is not finite in float32; expected: finite numbers")
    if features is not None:
        rows.resize((rows.shape[0], features))
    return rows, labels


def _line_of(path: Path, row: int) -> int:
    """Return the number of the line that holds sample number `row`, both counted as their users do: from 1 and 0."""
    with OPENERS.get(path.suffix, open)(path, "rb") as file:
        lines = _Lines(file)
        samples = (lines.number for line in lines if line.split(b"#", 1)[0].split())
        return next(number for at, number in enumerate(samples) if at == row)


def _classes(labels: Any, path: Path, label: str) -> tuple[int, Any]:
    """Return how many labels there are, and the place of each sample's label among them in rising order."""
    whole = np.isfinite(labels) & (labels == np.round(labels))
    if not whole.all():
        row = int(np.argmin(whole))
        raise ValueError(
            f"{label}: {path}, line {_line_of(path, row)}: has label {labels[row]:g}; "
            "expected: whole numbers, as -1 and 1 (dataset.targets=numbers takes others)"
        )
    known, classes = np.unique(labels, return_inverse=True)
    if not 2 <= len(known) <= MOST_CLASSES:
        expected = f"2 to {MOST_CLASSES} whole numbers (dataset.targets=numbers takes others)"
        raise ValueError(f"{label}: {path} holds {len(known)} labels; expected: {expected}")
    if known.tolist() != [-1, 1]:
        named = [f"{value:g}" for value in known]
        shown = ", ".join(named if len(named) <= 4 else [*named[:3], "...", named[-1]])
        binary = " (of two, a quadratic loss takes the first for -1, the second for 1)" if len(known) == 2 else ""
        log.warning("%s: %s has labels %s: classes 0 to %d in this order%s", label, path, shown, len(known) - 1, binary)
    return len(known), classes.astype(np.int64)


def _numbers(labels: Any, path: Path, label: str) -> tuple[int, Any]:
    """Return 0, and the labels in float32."""
    with np.errstate(over="ignore"):
        values = labels.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        at = f"line {_line_of(path, row)}: has label {labels[row]:g}"
        raise ValueError(f"{label}: {path}, {at}; expected: numbers that are finite in float32")
    return 0, values


def _split(rows: Any, values: Any, which: Any, limit: int | None, key: str, dense: bool) -> Split:
    chosen = torch.from_numpy(np.flatnonzero(which))
    targets = torch.from_numpy(values)[chosen]
    if len(targets):
        chosen, targets = limited(chosen, targets, limit, key)
    elif limit is not None:
        raise ValueError(f"{key}={limit}: there are no such samples; allowed: null, or dataset.test_share above 0")
    part = rows[chosen.numpy()]
    return Split(torch.from_numpy(part.toarray()), targets) if dense else SparseSplit(part, targets)
