"""Text as windows of tokens, characters or bytes, for models that guess the next token.

A sample is a window of `context` tokens, with the token that follows each of them as its targets. Windows lie end to
end: an epoch has every token of the training text as a target once, but for the first one and for what is left at the
end. A batch is `run.batch_size` windows.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.base import Dataset, Split, check_count, home_expanded
from data.grammar_text import SEED, SENTENCES, Grammar

BYTES = 256
LEVELS = ("character", "byte")
SUFFIX = ".txt"
MOST_CONTEXT = 2**20


class Text(Dataset):
    """Any text in UTF-8; its last part is the test split.

    Training and test windows have no token in common. Of training and validation windows, which are drawn from the
    same part, a token can be a target in one and the first input of another.

    Args:
        path: a file; or a folder, whose files `*.txt`, also those in folders below it, are read in the order of their
            names. None: a text from a small grammar, see `data.grammar_text`.
        level: what a token is, "character" (a Unicode code point; the vocabulary is all that occur in the text, in
            their order) or "byte" (a vocabulary of 256).
        context: tokens of a window.
        test_share: share of the tokens, at the end, that are for testing.
        limit_train: the first so many training windows alone.
        limit_test: likewise of the test windows.
        validation: the validation split, see `data.validation.divided`.

    Attributes:
        vocabulary: the characters, in the order of their numbers; None for bytes.

    Raises:
        ValueError: wrong option, no such file, or one that is not UTF-8.
    """

    tokens = True

    def __init__(
        self,
        *,
        path: str | None = None,
        level: str = "character",
        context: int = 64,
        test_share: float = 0.1,
        limit_train: int | None = None,
        limit_test: int | None = None,
        validation: float | int | None = None,
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"dataset.level={level}: is not allowed; allowed: {', '.join(LEVELS)}")
        check_count("dataset.context", context, most=MOST_CONTEXT)
        if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share < 1:
            raise ValueError(f"dataset.test_share={test_share}: is not allowed; allowed: numbers from 0 to below 1")
        text = Grammar(SEED).text(SENTENCES) if path is None else read(path)
        self.vocabulary = None if level == "byte" else "".join(sorted(set(text)))
        tokens = self.encode(text)
        cut = len(tokens) - round(test_share * len(tokens))
        if cut <= context:
            raise ValueError(
                f"dataset.context={context}: the training text has {cut} tokens, "
                f"and a window needs one more than its context; allowed: {_up_to(cut - 1)}"
            )
        if test_share and len(tokens) - cut <= context:
            raise ValueError(
                f"dataset.test_share={test_share}: leaves {len(tokens) - cut} tokens for tests, "
                f"and a window needs {context + 1}; allowed: 0, or a larger share, or a smaller dataset.context"
            )
        train = windows(tokens[:cut], context, limit_train, "dataset.limit_train")
        test = windows(tokens[cut:], context, limit_test, "dataset.limit_test")
        classes = BYTES if self.vocabulary is None else len(self.vocabulary)
        super().__init__(name="text", classes=classes, train=train, test=test, validation=validation)

    def encode(self, text: str) -> Tensor:
        """Return the token numbers of a text, int64.

        Raises:
            ValueError: a character is not in the vocabulary.
        """
        if self.vocabulary is None:
            return torch.from_numpy(np.frombuffer(bytearray(text.encode()), dtype=np.uint8).astype(np.int64))
        # Code points in order, so a character's number is its place among them.
        known = _code_points(self.vocabulary)
        points = _code_points(text)
        numbers = np.searchsorted(known, points).clip(max=len(known) - 1)
        if (wrong := points[known[numbers] != points]).size:
            raise ValueError(f"dataset=text: character {chr(wrong[0])!r} is not in the vocabulary")
        return torch.from_numpy(numbers.astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """Return the text of token numbers [n]; bytes that are no UTF-8, as of a window's ends, become U+FFFD."""
        if self.vocabulary is None:
            return bytes(tokens.tolist()).decode(errors="replace")
        return "".join(self.vocabulary[number] for number in tokens.tolist())


def windows(tokens: Tensor, context: int, limit: object, key: str) -> Split:
    """Cut tokens [n] into windows of `context`, end to end; a last one that is not full is left out.

    Returns:
        Inputs and targets [windows, context]; a target is the token after its input.

    Raises:
        ValueError: `limit`, the value of `key`, is neither None nor a number of these windows.
    """
    count = max(0, len(tokens) - 1) // context
    if limit is not None and not count:
        raise ValueError(f"{key}={limit}: there are no windows to choose from; allowed: null")
    if limit is not None:
        count = check_count(key, limit, most=count, none=True)
    used = count * context
    return Split(tokens[:used].view(count, context).clone(), tokens[1 : used + 1].view(count, context).clone())


def read(path: object) -> str:
    """Return the text of a file, or of a folder's files, each of which ends in a new line.

    Raises:
        ValueError: there is none, it is empty or not UTF-8.
    """
    label = f"dataset.path={path}"
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"dataset.path={path!r}: is not a path; allowed: a file, a folder of *{SUFFIX} files, or null")
    place = home_expanded(Path(path), label)
    if place.is_dir():
        parts = [_decoded(file, f"{label}: {file.relative_to(place)}") for file in _files(place)]
        if not parts:
            raise ValueError(f"{label}: has no *{SUFFIX} files; allowed: a file, or a folder of them")
        text = "".join(part if part.endswith("\n") else f"{part}\n" for part in parts)
    elif place.is_file():
        text = _decoded(place, label)
    else:
        raise ValueError(f"{label}: no such file or folder; allowed: a text in UTF-8, a folder of them, or null")
    if not text:
        raise ValueError(f"{label}: is empty; allowed: a text of two characters or more")
    return text


def _files(folder: Path) -> Iterator[Path]:
    found = folder.rglob(f"*{SUFFIX}")
    # By their parts: the order of names on every system, whatever separates them.
    for file in sorted(found, key=lambda file: file.relative_to(folder).parts):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file


def _decoded(file: Path, label: str) -> str:
    try:
        # Not as text, which would change the ends of lines.
        return file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{label}: is not UTF-8 (byte {error.start} is {error.object[error.start]:#04x}); allowed: texts in UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(f"{label}: cannot be read ({error.strerror}); allowed: texts that you may read") from None


def _code_points(text: str) -> np.ndarray:
    # Surrogates cannot be here: UTF-8 has none.
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def _up_to(most: int) -> str:
    return f"whole numbers from 1 to {most}" if most > 0 else "a longer text"
