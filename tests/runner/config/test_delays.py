"""Files of computing times: what is read of a good one, and the line about a wrong one."""

import hashlib
from pathlib import Path

import pytest

from runner.config import delays
from runner.config.errors import InputError


def written(folder: Path, content: str | bytes) -> str:
    path = folder / "d.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    "content",
    [
        "1,2\n3,4.5\n",
        "worker_0,worker_1\n1,2\n3,4.5\n",
        "Worker 0, worker-1 \r\n1, 2\r\n3 ,4.5\r\n\r\n\n",
        "\ufeff1,2\n3e0,4.5",
    ],
    ids=["bare", "header", "spreadsheet", "mark"],
)
def test_columns_are_read(content: str, tmp_path: Path):
    found = delays.read(written(tmp_path, content), workers=2)
    assert found.columns == ((1.0, 3.0), (2.0, 4.5))
    assert found.sha256 == hashlib.sha256(content.encode()).hexdigest()


def test_column_may_end_early(tmp_path: Path):
    assert delays.read(written(tmp_path, "1,2,3\n4,,5\n6,,\n")).columns == ((1.0, 4.0, 6.0), (2.0,), (3.0, 5.0))


def test_text_is_read_back_to_the_bit(tmp_path: Path):
    columns = ((0.1 + 0.2, 1e-300), (1 / 3,))
    assert delays.read(written(tmp_path, delays.text(columns)), 2).columns == columns


def test_changed_file_is_read_again(tmp_path: Path):
    place = written(tmp_path, "1\n")
    assert delays.read(place).columns == ((1.0,),)
    assert delays.read(written(tmp_path, "2\n2\n")).columns == ((2.0, 2.0),)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", "is empty; allowed: a CSV file with a column of seconds above 0 for each worker"),
        ("\n\n", "is empty"),
        ("worker_0,worker_1\n", "has no number for worker 0"),
        ("1,\n2,\n", "has no number for worker 1"),
        ("1,2,3\n", "has 3 columns; allowed: one per worker (cluster.workers=2)"),
        ("1\n", "has 1 columns; allowed: one per worker"),
        ("1,2\n1,2,3\n", "line 2 has 3 cells, the first line 2; allowed: as many in every line"),
        ("1,2\n\n1,2\n", "line 2 has 1 cells"),
        ("1,2\n1,two\n", "line 2 has two for worker 1; allowed: seconds, as finite numbers above 0"),
        ("1,2\n-1,2\n", "line 2 has -1 for worker 0"),
        ("1,2\n1,nan\n", "line 2 has nan for worker 1"),
        ("1,inf\n", "line 1 has inf for worker 1"),
        ("1,2\n0,2\n", "line 2 has 0 for worker 0"),
        ("1_0,2\n", "line 1 has 1_0 for worker 0"),
        ("1,2\n,2\n1,2\n", "line 2 has no number for worker 0, but line 3 has one; allowed: empty cells at the end"),
        ("a,b\n1,2\n", "line 1 holds neither seconds nor the workers' names; allowed: numbers above 0, or a first"),
        ("worker_1,worker_0\n1,2\n", "line 1 holds neither seconds nor the workers' names"),
        ('1,"2\n', "line 1 cannot be read (unexpected end of data)"),
        (b"1,2\n\xff,2\n", "is not text (byte 4 is not UTF-8)"),
    ],
)
def test_wrong_content_is_one_line(content: str | bytes, wrong: str, tmp_path: Path):
    place = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        delays.read(place, workers=2)
    assert str(caught.value).startswith(f"cluster.compute.delays={place}: {wrong}")


def test_what_is_no_file_is_one_line(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"delays=none\.csv: cannot be read \(No such file or directory\); allowed: a CSV"
    ):
        delays.read("none.csv")
    with pytest.raises(InputError, match="is not a plain file; allowed: a CSV file"):
        delays.read(str(tmp_path))
