from pathlib import Path

import pytest
import torch

from data.text import Text, read, windows

STORY = "Ünïcödé is 日本語 here, and 🙂 ends it.\r\nA second line.\n" * 8


def written(tmp_path: Path, text: str = STORY, name: str = "story.txt") -> str:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize("level", ["character", "byte"])
def test_text_survives_its_tokens(level: str, tmp_path: Path):
    data = Text(path=written(tmp_path), level=level, context=5)
    tokens = data.encode(STORY)
    assert data.decode(tokens) == STORY
    assert len(tokens) == (len(STORY) if level == "character" else len(STORY.encode()))
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < data.classes
    assert data.classes == (len(set(STORY)) if level == "character" else 256)


@pytest.mark.parametrize("level", ["character", "byte"])
def test_splits_are_the_text_in_order(level: str, tmp_path: Path):
    data = Text(path=written(tmp_path), level=level, context=5, test_share=0.25)
    tokens = data.encode(STORY)
    cut = len(tokens) - round(0.25 * len(tokens))
    for split, part in ((data.train, tokens[:cut]), (data.test, tokens[cut:])):
        count = (len(part) - 1) // 5
        assert len(split) == count > 0
        inputs, targets = split.batch(torch.arange(count))
        assert inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(inputs.flatten(), part[: count * 5])
        assert torch.equal(targets.flatten(), part[1 : count * 5 + 1])


def test_no_token_is_in_both_splits():
    # Each token is its own place in the text.
    tokens = torch.arange(1003)
    train, test = windows(tokens[:700], 8, None, "a"), windows(tokens[700:], 8, None, "b")
    seen = [{*split.inputs.flatten().tolist(), *split.targets.flatten().tolist()} for split in (train, test)]
    assert not seen[0] & seen[1]
    assert len(train.targets.unique()) == train.targets.numel()


@pytest.mark.parametrize(("tokens", "count"), [(0, 0), (1, 0), (4, 0), (5, 1), (8, 1), (9, 2)])
def test_last_window_is_full(tokens: int, count: int):
    assert len(windows(torch.arange(tokens), 4, None, "key")) == count


def test_validation_takes_whole_windows():
    whole, data = Text(limit_train=40, context=16), Text(limit_train=40, context=16, validation=0.25)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (30, 10)
    parts = torch.cat([data.train.inputs, data.validation.inputs])
    assert {tuple(row) for row in parts.tolist()} == {tuple(row) for row in whole.train.inputs.tolist()}
    assert data.fingerprint != whole.fingerprint


def test_limits_take_first_windows():
    whole, few = Text(context=16), Text(context=16, limit_train=7, limit_test=3)
    assert torch.equal(few.train.inputs, whole.train.inputs[:7])
    assert torch.equal(few.test.targets, whole.test.targets[:3])
    with pytest.raises(ValueError, match=r"dataset.limit_test=100000: is not allowed"):
        Text(limit_test=100_000)


def test_folder_is_read_in_order(tmp_path: Path):
    for name, text in (("b.txt", "two"), ("a/z.txt", "one\n"), ("c.md", "no"), (".hidden/d.txt", "no"), ("B.txt", "0")):
        written(tmp_path, text, name)
    assert read(str(tmp_path)) == "0\none\ntwo\n"


def test_ends_of_lines_are_kept(tmp_path: Path):
    assert read(written(tmp_path, "a\r\nb\rc\n")) == "a\r\nb\rc\n"


def test_unknown_characters_are_refused(tmp_path: Path):
    data = Text(path=written(tmp_path), context=5)
    for wrong in ("z", "\0", "\U0010ffff"):
        with pytest.raises(ValueError, match="is not in the vocabulary"):
            data.encode(f"A second {wrong}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "word"}, "dataset.level=word: is not allowed; allowed: character, byte"),
        ({"context": 0}, "dataset.context=0: is not allowed"),
        ({"context": 10**6}, "dataset.context=1000000: the training text has .* tokens, and a window needs one more"),
        ({"test_share": 1}, "dataset.test_share=1: is not allowed; allowed: numbers from 0 to below 1"),
        ({"test_share": 1e-5}, "dataset.test_share=1e-05: leaves 2 tokens for tests, and a window needs 65"),
        ({"path": "nowhere"}, "dataset.path=nowhere: no such file or folder"),
        (
            {"test_share": 0, "limit_test": 5},
            "dataset.limit_test=5: there are no windows to choose from; allowed: null",
        ),
        ({"path": 3}, "dataset.path=3: is not a path"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Text(**options)  # pyright: ignore[reportArgumentType]


def test_bad_files_are_one_line(tmp_path: Path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(ValueError, match=r"dataset.path=.*: latin.txt: is not UTF-8 \(byte 3 is 0xe9\)"):
        Text(path=str(tmp_path))
    with pytest.raises(ValueError, match="is empty"):
        Text(path=written(tmp_path / "other", ""))
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"has no \*.txt files"):
        Text(path=str(tmp_path / "none"))


def test_no_test_share_has_no_tests(tmp_path: Path):
    assert len(Text(path=written(tmp_path), context=5, test_share=0).test) == 0
