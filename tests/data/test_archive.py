import io
import logging
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data.archive import Tree, opened

LABEL = "dataset.root=it"
NAMES = [f"{split}/{group}/{i}.png" for split in ("train", "test") for group in ("dog", "cat") for i in (1, 0)]


def packed(path: Path, names: list[str], change: Callable[[tarfile.TarInfo], None] | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 900
            if change:
                change(member)
            tar.addfile(member, io.BytesIO(os.fsencode(name).ljust(900)))
    return path


def listed(path: Path) -> Tree:
    with opened(path, LABEL) as tree:
        return tree


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("above", ["", "./", "cifar/"])
def test_archive_is_listed_by_class_and_name(tmp_path: Path, name: str, above: str):
    names = [above + name for name in [*NAMES, "train/dog/notes.txt", "train/dog/._0.png"]]
    with opened(packed(tmp_path / name, names), LABEL) as tree:
        assert tree.classes == ["cat", "dog"]
        assert [file.name for file in tree.train] == [f"train/{c}/{i}.png" for c in ("cat", "dog") for i in (0, 1)]
        assert [file.target for file in tree.test] == [0, 0, 1, 1]
        assert tree.test[3].read() == f"{above}test/dog/1.png".encode().ljust(900)
        first = min(tree.train, key=lambda file: file.position)
        assert first.name == "train/dog/1.png"


def test_folder_is_listed_likewise(tmp_path: Path):
    for name in [*NAMES, "train/dog/notes.txt", "train/.hidden/1.png", "extra/cat/1.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    tree = listed(tmp_path)
    assert tree.classes == ["cat", "dog"]
    assert [file.name for file in tree.test] == [f"test/{c}/{i}.png" for c in ("cat", "dog") for i in (0, 1)]
    assert tree.test[0].read() == str(tmp_path / "test/cat/0.png")


def test_val_counts_where_there_is_no_test(tmp_path: Path):
    tree = listed(packed(tmp_path / "a.tar", [name.replace("test", "val") for name in NAMES]))
    assert tree.test[0].name == "val/cat/0.png"


@pytest.mark.parametrize("name", ["../train/cat/9.png", "train/../../cat/9.png", "/train/cat/9.png"])
def test_members_cannot_escape(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=f"{LABEL}: member '.*9.png' points outside"):
        listed(packed(tmp_path / "a.tar", [*NAMES, name]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    def change(member: tarfile.TarInfo) -> None:
        if member.name == NAMES[3]:
            member.type, member.linkname, member.size = kind, "/etc/hostname", 0

    with pytest.raises(ValueError, match="is a link or device"):
        listed(packed(tmp_path / "a.tar", NAMES, change))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_truncated_archives_are_refused(tmp_path: Path, name: str, share: float):
    content = packed(tmp_path / name, NAMES).read_bytes()
    end = len(content) if name.endswith("gz") else len(NAMES) * 1536  # behind it a tar has only zeros
    (tmp_path / name).write_bytes(content[: int(share * end)])
    with pytest.raises(ValueError, match=f"{LABEL}: .*(truncated|damaged).*; expected: ") as error:
        listed(tmp_path / name)
    assert "\n" not in str(error.value)


def test_archive_cut_between_two_members_is_refused(tmp_path: Path):
    path = packed(tmp_path / "a.tar", NAMES)
    path.write_bytes(path.read_bytes()[: 7 * 1536])
    with pytest.raises(ValueError, match="truncated or damaged archive"):
        listed(path)


def test_flipped_byte_in_compressed_archive_is_found(tmp_path: Path):
    path = packed(tmp_path / "a.tar.gz", NAMES)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # its checksum, which tarfile does not look at
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged archive"):
        listed(path)


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=f"{LABEL}: is not a tar file.*expected: a folder or .tar") as error:
        listed(tmp_path / "a.tar")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["readme.txt"], r"no JPEG or PNG images \(1 members, first 'readme.txt'\)"),
        (["train/1.png"], "'train/1.png' is not in a split and class"),
        ([*NAMES, "x/train/cat/1.png"], "different depths"),
        ([name for name in NAMES if "test" not in name], r"no images of split 'test' \(found: train\)"),
        ([name for name in NAMES if "train" not in name], r"no images of split 'train' \(found: test\)"),
        ([name for name in NAMES if "test/dog" not in name], "split 'test' has no images of class 'dog'"),
        ([name for name in NAMES if "train/cat" not in name], "split 'train' has no images of class 'cat'"),
    ],
)
def test_wrong_layouts_are_named(tmp_path: Path, names: list[str], message: str):
    with pytest.raises(ValueError, match=f"{LABEL}: .*{message}.*expected: "):
        listed(packed(tmp_path / "a.tar", names))


def test_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no images of split 'train' \(found: no images at all\)"):
        listed(tmp_path)


def filled(root: Path, *more: str) -> Path:
    for name in [*NAMES, *more]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


ODD = ["train/cat/a.webp", "train/cat/deep/1.png", "train/b.png", "test/dog/list.txt"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_what_is_left_out_is_named_once(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture):
    odd = ODD if kind == "folder" else [ODD[0], ODD[3], "train/cat/b.GIF", "train/cat/c.tif"]
    names = [*odd, "train/cat/.DS_Store", "train/cat/._0.png", "train/cat/Thumbs.db", "README.md"]
    path = filled(tmp_path, *names) if kind == "folder" else packed(tmp_path / "a.tar", [*NAMES, *names])
    with caplog.at_level(logging.WARNING):
        tree = listed(path)
    assert len(tree.train) == len(tree.test) == 4
    [line] = caplog.messages
    assert line.startswith(f"{LABEL}: left out 4 files or folders: ")
    assert "train/cat/a.webp" in line
    assert ", ...; read: train/<class>/*.jpg|png" in line


def test_nothing_left_out_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    listed(filled(tmp_path, "train/cat/.DS_Store", "train/dog/desktop.ini", "train/.ipynb_checkpoints/0.png"))
    assert caplog.messages == []


def test_hidden_folders_of_archives_are_no_classes(tmp_path: Path):
    tree = listed(packed(tmp_path / "a.tar", [*NAMES, "train/.ipynb_checkpoints/0.png"]))
    assert tree.classes == ["cat", "dog"]


def test_unused_split_and_empty_class_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    filled(tmp_path, *[name.replace("test", "val") for name in NAMES if "test" in name])
    (tmp_path / "train" / "empty").mkdir()
    assert listed(tmp_path).classes == ["cat", "dog"]
    assert "left out 2 files or folders: train/empty/, val/;" in caplog.text


def test_folder_of_other_pictures_alone_says_so(tmp_path: Path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).with_suffix(".webp").touch()
    with pytest.raises(
        ValueError, match=r"no images of split 'train' .*left out 12 files or folders: train/cat/0.webp"
    ):
        listed(tmp_path)


def test_single_class_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=f"{LABEL}: has one class only .'cat'.; expected: two or more"):
        listed(packed(tmp_path / "a.tar", [name for name in NAMES if "dog" not in name]))


def test_endings_count_in_either_case(tmp_path: Path):
    tree = listed(filled(tmp_path, "train/cat/9.PNG", "train/cat/9.Jpeg"))
    assert [file.name for file in tree.train[:4]] == [f"train/cat/{n}" for n in ("0.png", "1.png", "9.Jpeg", "9.PNG")]


@pytest.mark.parametrize("kind", ["pipe", "socket", "dangling link", "link to itself"])
def test_images_that_are_no_files_are_named(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    place = filled(tmp_path) / "train" / "cat" / "8.png"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        monkeypatch.chdir(place.parent)  # the name of a socket may have a hundred characters only
        socket.socket(socket.AF_UNIX).bind(place.name)
    else:
        place.symlink_to("nowhere" if kind == "dangling link" else place.name)
    with pytest.raises(
        ValueError, match=f"{LABEL}: train/cat/8.png is not a plain file .*; expected: JPEG or PNG files"
    ):
        listed(tmp_path)


def test_links_that_lead_back_up_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (filled(tmp_path) / "train" / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "train" / "round").symlink_to("round")
    tree = listed(tmp_path)
    assert (len(tree.train), tree.classes) == (4, ["cat", "dog"])
    assert "left out 2 files or folders: train/cat/up/, train/round;" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "a.tar"])
def test_names_of_any_characters_are_read(tmp_path: Path, kind: str):
    names = [
        "train/ä ö/猫 1.png",
        "train/b/x.png",
        "test/ä ö/'q\".png",
        "test/b/$HOME.png",
        os.fsdecode(b"test/b/\xff.png"),
    ]
    root = tmp_path / "données à moi"
    root.mkdir()
    if kind == "folder":
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    else:
        root = packed(root / kind, names)
    tree = listed(root)
    assert tree.classes == ["b", "ä ö"]
    assert sorted(file.name for file in (*tree.train, *tree.test)) == sorted(names)
