"""Computing times from a file: `cluster.compute.delays=FILE.csv`, a column a worker, a row a gradient.

Row k of column m holds the seconds that worker m needs for its k-th gradient over one full batch, in the order in which
it computes them. A first line may name the columns `worker_0,worker_1,...`. Workers do not all compute equally many
gradients, so a column may end early: its last cells are empty then.
"""

import csv
import functools
import hashlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.config.errors import InputError, shown
from runner.config.paths import expanded

KEY = "cluster.compute.delays"
ALLOWED = "a CSV file with a column of seconds above 0 for each worker"


@dataclass(frozen=True)
class Delays:
    """Computing times of every worker, as a file gives them.

    Attributes:
        columns: by worker, the seconds of its gradients; at least one each.
        content: of the file.
    """

    columns: tuple[tuple[float, ...], ...]
    content: bytes

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the file's content, as hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


def read(place: str, workers: int | None = None) -> Delays:
    """Read a file of computing times.

    Args:
        place: where the file is; a relative path starts at the current folder.
        workers: how many columns it has to have; None for any number.

    Raises:
        InputError: it cannot be read or used; names the key, the file, the line and what is allowed.
    """
    path = expanded(place, KEY)
    try:
        # By its age and size: a sweep asks for the same file once for every job.
        status = path.stat()
        if not path.is_file():
            raise _wrong(place, "is not a plain file")
        found = _parsed(str(path.absolute()), place, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise _wrong(place, f"cannot be read ({error.strerror or error})") from error
    if workers is not None and len(found.columns) != workers:
        raise _wrong(place, f"has {len(found.columns)} columns", f"one per worker (cluster.workers={workers})")
    return found


def text(columns: Sequence[Sequence[float]]) -> str:
    """Return computing times as the content of a file, with a first line that names the workers.

    Args:
        columns: by worker, the seconds of its gradients.
    """
    lines = [",".join(f"worker_{worker}" for worker in range(len(columns)))]
    for row in range(max(map(len, columns))):
        # All digits: who reads the file has the same numbers to the bit.
        lines.append(",".join(repr(float(column[row])) if row < len(column) else "" for column in columns))
    return "\n".join(lines) + "\n"


@functools.lru_cache(maxsize=8)
def _parsed(path: str, place: str, age: int, size: int) -> Delays:
    """Parse a file; `age` and `size` only keep a file that was changed since from being taken out of the cache."""
    with open(path, "rb") as file:
        content = file.read()
    columns: list[list[float]] = []
    # By worker, the line with its first empty cell.
    ended: dict[int, int] = {}
    for line, cells in _rows(place, content):
        if not columns:
            columns = [[] for _ in cells]
            if not _is_number(cells[0]):
                _check_header(place, line, cells)
                continue
        if len(cells) != len(columns):
            what = f"line {line} has {len(cells)} cells, the first line {len(columns)}"
            raise _wrong(place, what, "as many in every line")
        for worker, cell in enumerate(cells):
            if not cell:
                ended.setdefault(worker, line)
                continue
            if worker in ended:
                what = f"line {ended[worker]} has no number for worker {worker}, but line {line} has one"
                raise _wrong(place, what, "empty cells at the end of a column only")
            columns[worker].append(_seconds(place, line, worker, cell))
    if not columns or not all(columns):
        empty = [worker for worker, column in enumerate(columns) if not column]
        raise _wrong(place, f"has no number for worker {empty[0]}" if empty else "is empty")
    return Delays(tuple(map(tuple, columns)), content)


def _rows(place: str, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line, without empty lines at the end."""
    try:
        # Spreadsheets begin a file with a byte-order mark.
        decoded = content.decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise _wrong(place, f"is not text (byte {error.start} is not UTF-8)") from error
    reader = csv.reader(io.StringIO(decoded + "\n" if decoded else ""), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells] or [""]
    except csv.Error as error:
        raise _wrong(place, f"line {reader.line_num} cannot be read ({error})") from error


def _check_header(place: str, line: int, cells: list[str]) -> None:
    names = [f"worker_{worker}" for worker in range(len(cells))]
    if [re.sub(r"[ _-]", "_", cell.lower()) for cell in cells] != names:
        what = f"line {line} holds neither seconds nor the workers' names"
        listed = ",".join(names) if len(names) <= 3 else f"worker_0,...,{names[-1]}"
        raise _wrong(place, what, f"numbers above 0, or a first line {listed}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _seconds(place: str, line: int, worker: int, cell: str) -> float:
    # Of what Python takes for a number, 1_0 is none that others write.
    value = float(cell) if _is_number(cell) and "_" not in cell else math.nan
    if not (math.isfinite(value) and value > 0):
        what = f"line {line} has {shown(cell)} for worker {worker}"
        raise _wrong(place, what, "seconds, as finite numbers above 0")
    return value


def _wrong(place: str, what: str, allowed: str = ALLOWED) -> InputError:
    return InputError.of(KEY, place, what, allowed)
