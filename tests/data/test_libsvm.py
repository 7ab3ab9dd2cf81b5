import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from data import libsvm
from data.libsvm import LibSVM

CONF = Path(__file__).resolve().parents[2] / "conf"
TEXT = b"-1 1:0.5 3:2\n1 2:-1\n1 1:1 2:1 3:1\n-1 4:0.25\n"
DENSE = [[0.5, 0, 2, 0], [0, -1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0.25]]


@pytest.mark.parametrize(
    ("ending", "pack"), [("", bytes), (".bz2", bz2.compress), (".gz", gzip.compress), (".xz", lzma.compress)]
)
def test_reads_plain_and_packed_files(ending, pack, tmp_path: Path):
    (tmp_path / f"small{ending}").write_bytes(pack(TEXT))
    choices: list[dict[str, Any]] = [
        {"root": str(tmp_path), "file": "small"},
        {"root": str(tmp_path / f"small{ending}")},
    ]
    for options in choices:
        data = LibSVM(**options)
        inputs, targets = data.train.batch(torch.arange(4))
        assert inputs.tolist() == DENSE
        assert targets.tolist() == [0, 1, 1, 0]
        assert (data.shape, data.classes, len(data.test), data.name) == ((4,), 2, 0, "small")


def test_compressed_rows_give_the_same_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "small").write_bytes(TEXT)
    dense = LibSVM(root=str(tmp_path), file="small")
    monkeypatch.setattr(libsvm, "DENSE_BYTES", 16)
    sparse = LibSVM(root=str(tmp_path), file="small")
    assert isinstance(sparse.train, libsvm.SparseSplit)
    ids = torch.tensor([2, 0, 2])
    assert torch.equal(sparse.train.batch(ids)[0], dense.train.batch(ids)[0])
    assert torch.equal(sparse.train.batch(ids)[1], dense.train.batch(ids)[1])
    assert len(sparse.train) == 4
    assert sparse.shape == (4,)
    first = sparse.fingerprint
    (tmp_path / "small").write_bytes(TEXT.replace(b"0.25", b"0.5"))
    assert LibSVM(root=str(tmp_path), file="small").fingerprint != first


def test_a_seeded_share_is_held_out(tmp_path: Path):
    (tmp_path / "small").write_bytes(b"".join(b"%d 1:%d\n" % (i % 2, i) for i in range(1, 41)))
    data = LibSVM(root=str(tmp_path), file="small", test_share=0.25)
    assert (len(data.train), len(data.test)) == (30, 10)
    every = torch.cat([data.train.inputs, data.test.inputs]).flatten().sort().values
    assert torch.equal(every, torch.arange(1, 41).float())
    again = LibSVM(root=str(tmp_path), file="small", test_share=0.25)
    other = LibSVM(root=str(tmp_path), file="small", test_share=0.25, split_seed=1)
    assert data.fingerprint == again.fingerprint != other.fingerprint
    assert len(LibSVM(root=str(tmp_path), file="small", test_share=0.25, limit_train=6, limit_test=4).train) == 6


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("bad.bz2", bz2.compress(TEXT * 400)[:-20], "truncated or damaged"),
        ("bad.gz", gzip.compress(TEXT * 400)[:-20], "truncated or damaged"),
        ("bad.xz", lzma.compress(TEXT * 400)[:-20], "truncated or damaged"),
        ("bad.bz2", b"no archive", "cannot be read"),
        ("bad", b"<html>not found</html>\n", "is not a LIBSVM file"),
        ("bad", b"", "holds no samples"),
        ("bad", b"1 1:2\n1 1:3\n", "holds 1 labels"),
        ("bad", b"0.5 1:2\n1 1:3\n", "holds 2 labels"),
        ("bad", b"0 1:nan\n1 1:3\n", "not finite"),
    ],
    # A gzip file holds the time at which it was made, which no test may be named by.
    ids=["cut bz2", "cut gz", "cut xz", "no bz2", "a page", "empty", "one label", "labels 0.5", "nan"],
)
def test_foreign_and_damaged_files_are_refused(name: str, content: bytes, wrong: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^dataset.root=.*{wrong}.*; expected: "):
        LibSVM(root=str(tmp_path / name))


@pytest.mark.parametrize(
    ("option", "value"),
    [("test_share", 1), ("test_share", -0.1), ("split_seed", -1), ("samples", 0), ("features", 1.5), ("limit_test", 1)],
)
def test_wrong_options_are_refused(option: str, value: object, tmp_path: Path):
    (tmp_path / "small").write_bytes(TEXT)
    with pytest.raises(ValueError, match=rf"^dataset.{option}={value}: .*; allowed: "):
        LibSVM(**{"root": str(tmp_path), "file": "small", option: value})  # type: ignore[arg-type]


def ijcnn1(root: Path) -> LibSVM:
    """Build the option `dataset=ijcnn1`."""
    return instantiate(OmegaConf.load(CONF / "dataset" / "ijcnn1.yaml"), root=str(root))


def test_file_of_another_length_is_refused(tmp_path: Path):
    (tmp_path / "ijcnn1").write_bytes(TEXT)
    with pytest.raises(Exception, match=r"holds 4 samples; expected: 49990"):
        ijcnn1(tmp_path)


def test_ijcnn1_is_read_as_it_is(shared_data: Path):
    data = ijcnn1(shared_data)
    assert (data.shape, data.classes, len(data.train), len(data.test)) == ((22,), 2, 49_990, 0)
    assert torch.bincount(data.train.targets).tolist() == [45_137, 4_853]
    with bz2.open(shared_data / "ijcnn1.bz2") as file:
        line = file.readline().split()
    expected = np.zeros(22, dtype=np.float32)
    for item in line[1:]:
        index, value = item.split(b":")
        expected[int(index) - 1] = float(value)
    assert torch.equal(data.train.batch(torch.tensor([0]))[0][0], torch.from_numpy(expected))
