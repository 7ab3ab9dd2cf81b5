import bz2
import gzip
import logging
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
        ("bad", b"\n\n# nothing\n", "holds no samples"),
    ],
    # A gzip file holds the time at which it was made, which no test may be named by.
    ids=["cut bz2", "cut gz", "cut xz", "no bz2", "a page", "empty", "one label", "comments"],
)
def test_foreign_and_damaged_files_are_refused(name: str, content: bytes, wrong: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^dataset.root=.*{wrong}.*; expected: "):
        LibSVM(root=str(tmp_path / name))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("test_share", 1),
        ("test_share", -0.1),
        ("split_seed", -1),
        ("samples", 0),
        ("features", 1.5),
        ("limit_test", 1),
        ("targets", "ages"),
    ],
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


GOOD = b"# comment\n\n1 1:2\n-1 2:1 # more\n"
FAULTS = {
    "a value missing": (b"1 1:", "could not convert"),
    "a colon missing": (b"1 1", "no colon between"),
    "no number": (b"1 1:x", "could not convert"),
    "label of two": (b"1,2 1:1", "could not convert"),
    "same index twice": (b"1 3:1 3:1", "sorted and unique"),
    "falling indices": (b"1 3:1 2:1", "sorted and unique"),
    "negative index": (b"1 -3:1", "Invalid index"),
    "index of 2^31": (b"1 2147483648:1", "value too large"),
    "index of 10^30": (b"1 %d:1" % 10**30, "too large"),
    "fractional index": (b"1 1.5:1", "invalid literal"),
    "underscore": (b"1 1:1_0", "'_' in a number"),
    "hexadecimal": (b"1 1:0x10", "could not convert"),
    "binary": (bytes(range(14, 35)), "could not convert"),
    "UTF-16": ("1 1:1".encode("utf-16"), "could not convert"),
    "huge index": (
        b"1 1:1 67108865:1",
        r"has feature 67108865; expected: up to 67108864 features \(dataset.features all",
    ),
    "nan": (b"1 1:nan", "not finite in float32"),
    "inf": (b"1 1:-inf", "not finite in float32"),
    "1e400": (b"1 1:1e400", "not finite in float32"),
    "1e39": (b"1 1:1e39", "not finite in float32"),
    "label 0.5": (b"0.5 1:1", "has label 0.5; expected: whole numbers, as -1 and 1"),
    "label nan": (b"nan 1:1", "has label nan"),
    "label inf": (b"1e999 1:1", "has label inf"),
}


@pytest.mark.parametrize(("line", "wrong"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("ending", ["", ".bz2"])
def test_faults_are_named_with_their_line(line: bytes, wrong: str, ending: str, tmp_path: Path):
    path = tmp_path / f"bad{ending}"
    content = GOOD * 2 + line + b"\n" + GOOD
    path.write_bytes(bz2.compress(content) if ending else content)
    with pytest.raises(ValueError, match=rf"^dataset.root=\S+: {path}, line 9: .*{wrong}") as error:
        LibSVM(root=str(path))
    assert len(str(error.value)) < 600 + 2 * len(str(path))


def test_index_beyond_the_features_is_named_with_its_line(tmp_path: Path):
    (tmp_path / "small").write_bytes(b"-1\n\n" + TEXT)
    with pytest.raises(ValueError, match=r"line 6: has feature 4; expected: up to 3 features \(dataset.features\)$"):
        LibSVM(root=str(tmp_path / "small"), features=3)
    assert LibSVM(root=str(tmp_path / "small"), features=9).shape == (9,)


def test_huge_index_asks_for_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "small").write_bytes(b"-1 1:1\n1 2147483647:1\n")
    monkeypatch.setattr(libsvm, "_split", None)  # what would make rows dense
    with pytest.raises(ValueError, match="line 2: has feature 2147483647; expected: up to 67108864"):
        LibSVM(root=str(tmp_path / "small"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((-1, 1), None),
        ((0, 1), "labels 0, 1: classes 0 to 1 in this order (of two, a quadratic loss takes the first for -1"),
        ((2, 1), "labels 1, 2: classes 0 to 1 in this order (of two"),
        ((3, -7, 5), "labels -7, 3, 5: classes 0 to 2 in this order"),
        ((0, 1, 2, 3, 4, 5), "labels 0, 1, 2, ..., 5: classes 0 to 5 in this order"),
    ],
)
def test_other_labels_are_mapped_and_said(
    labels: tuple[int, ...], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "small").write_bytes(b"".join(b"%+d 1:1\n" % label for label in labels))
    with caplog.at_level(logging.WARNING):
        data = LibSVM(root=str(tmp_path / "small"))
    assert data.classes == len(labels)
    assert data.train.targets.tolist() == [sorted(labels).index(label) for label in labels]
    assert [message.split(" has ")[1][: len(said or "")] for message in caplog.messages] == ([said] if said else [])


VARIANTS = {
    "Windows line ends": TEXT.replace(b"\n", b"\r\n"),
    "byte-order mark": b"\xef\xbb\xbf" + TEXT,
    "comments and blank lines": b"# head\n\n" + TEXT.replace(b"\n", b" # tail\n   \n"),
    "indices from zero": b"-1 0:0.5 2:2\n1 1:-1\n1 0:1 1:1 2:1\n-1 3:0.25\n",
    "no newline at the end": TEXT.rstrip(),
    "tabs": TEXT.replace(b" ", b"\t"),
    "signs and exponents": b"-1.0 1:+5e-1 3:2.\n+1 2:-1\n1e0 1:1 2:1 3:1\n-1 4:.25\n",
    "qid": TEXT.replace(b"1 1:", b"1 qid:3 1:"),
    "qid beyond int64": TEXT.replace(b"1 1:", b"1 qid:99999999999999999999 1:"),
}


@pytest.mark.parametrize("content", VARIANTS.values(), ids=VARIANTS)
def test_variants_of_the_format_are_read_alike(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "small").write_bytes(content)
    data = LibSVM(root=str(tmp_path / "small"))
    assert data.train.inputs.tolist() == DENSE
    assert data.train.targets.tolist() == [0, 1, 1, 0]
    assert [message.split(": ")[1].split(" ", 1)[1] for message in caplog.messages] == (
        ["groups its lines by qid, which a classification does not use"] if b"qid" in content else []
    )


REGRESSION = b"29 1:0.5 3:2\n-3.25 2:-1\n1e3 1:1 2:1 3:1\n29 4:0.25\n0.1 1:1\n"
NUMBERS = torch.tensor([29, -3.25, 1000, 29, 0.1])


@pytest.mark.parametrize("dense_bytes", [16, 2**30], ids=["compressed", "dense"])
def test_numbers_are_as_the_file_says(
    dense_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(libsvm, "DENSE_BYTES", dense_bytes)
    (tmp_path / "small").write_bytes(REGRESSION)
    data = LibSVM(root=str(tmp_path / "small"), targets="numbers")
    inputs, targets = data.train.batch(torch.tensor([4, 0, 1, 2, 3]))
    assert targets.dtype == torch.float32
    assert torch.equal(targets, NUMBERS[[4, 0, 1, 2, 3]])
    assert inputs[1:].tolist()[:3] == DENSE[:3]
    assert data.classes == 0
    assert not caplog.records
    first = data.fingerprint
    (tmp_path / "small").write_bytes(REGRESSION.replace(b"-3.25", b"-3.5"))
    assert LibSVM(root=str(tmp_path / "small"), targets="numbers").fingerprint != first


def test_whole_numbers_are_classes_unless_said(tmp_path: Path):
    (tmp_path / "small").write_bytes(b"3 1:1\n1 1:2\n7 1:3\n")
    classes, numbers = (LibSVM(root=str(tmp_path / "small"), targets=kind) for kind in ("classes", "numbers"))
    assert (classes.train.targets.tolist(), classes.classes) == ([1, 0, 2], 3)
    assert (numbers.train.targets.tolist(), numbers.classes) == ([3.0, 1.0, 7.0], 0)
    assert classes.fingerprint != numbers.fingerprint
    assert LibSVM(root=str(tmp_path / "small")).fingerprint == classes.fingerprint


def test_parts_of_numbers_are_the_first(tmp_path: Path):
    (tmp_path / "small").write_bytes(b"".join(b"%d.5 1:%d\n" % (i, i) for i in range(1, 41)))
    data = LibSVM(root=str(tmp_path / "small"), targets="numbers", test_share=0.25, limit_train=7, limit_test=4)
    assert (len(data.train), len(data.test)) == (7, 4)
    assert torch.equal(data.train.inputs[:, 0] + 0.5, data.train.targets)
    whole = LibSVM(root=str(tmp_path / "small"), targets="numbers", test_share=0.25)
    assert torch.equal(data.train.targets, whole.train.targets[:7])
    assert torch.equal(data.test.targets, whole.test.targets[:4])


@pytest.mark.parametrize("label", [b"nan", b"-inf", b"1e39"])
def test_numbers_beyond_float32_are_named_with_their_line(label: bytes, tmp_path: Path):
    (tmp_path / "bad").write_bytes(b"# comment\n0.5 1:1\n" + label + b" 1:1\n1 1:1\n")
    with pytest.raises(ValueError, match=r"bad, line 3: has label .*; expected: numbers that are finite in float32$"):
        LibSVM(root=str(tmp_path / "bad"), targets="numbers")


@pytest.mark.parametrize("content", [b"0.5 1:1\n", b"".join(b"%d 1:1\n" % i for i in range(1001))])
def test_labels_that_are_no_classes_say_what_takes_them(content: bytes, tmp_path: Path):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ValueError, match=r"whole numbers.* \(dataset\.targets=numbers takes others\)$"):
        LibSVM(root=str(tmp_path / "bad"))
