"""A text from a small grammar: what `dataset=text` reads if no file is given. Neither file nor network is needed.

No package that dcrun needs ships a text in the public domain, and the texts that come with Python differ from version
to version. This one is the project's own. Verbs agree with their subjects, over relative clauses in between, quotation
marks are closed, and a paragraph keeps to its narrator: there is something to learn at short and at longer distance.
"""

import random

SENTENCES = 4000
SEED = 0

_NOUNS = ("worker", "server", "river", "captain", "garden", "letter", "mountain", "teacher", "window", "horse")
_ADJECTIVES = ("old", "quiet", "green", "stale", "distant", "patient", "narrow", "honest")
_MOVES = ("wait", "sleep", "return", "sing", "arrive", "listen", "work")
_ACTS = ("follow", "remember", "need", "answer", "find", "know", "help", "see")
_SAYINGS = ("say", "think", "know", "hear")
_PLACES = ("near", "behind", "above", "under", "beside")
_NUMBERS = ("two", "three", "seven", "many", "some", "all")
_WHEN = ("today", "at night", "in the morning", "every day", "once more")
_JOINTS = (" and ", " but ", " while ", ", because ")
_NARRATORS = ("Ada", "Grace", "Emmy", "Sofia", "Carl", "Alan")


class Grammar:
    """Draws sentences.

    Args:
        seed: of all choices. `random.Random.random` is the same in every version of Python.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self, sentences: int) -> str:
        """Return paragraphs of so many sentences in all, each paragraph on a line."""
        paragraphs: list[str] = []
        while sentences > 0:
            size = min(sentences, 2 + int(5 * self._random.random()))
            narrator = self._one(_NARRATORS)
            paragraphs.append(" ".join(self._sentence(narrator) for _ in range(size)))
            sentences -= size
        return "\n".join(paragraphs) + "\n"

    def _one(self, choices: tuple[str, ...]) -> str:
        return choices[int(len(choices) * self._random.random())]

    def _often(self, share: float) -> bool:
        return self._random.random() < share

    def _sentence(self, narrator: str) -> str:
        if self._often(0.3):
            return f'{narrator} {self._one(_SAYINGS)}s: "{_capital(self._clauses())}."'
        return f"{_capital(self._clauses())}."

    def _clauses(self) -> str:
        first = self._clause()
        return first + self._one(_JOINTS) + self._clause() if self._often(0.25) else first

    def _clause(self) -> str:
        subject, plural = self._group(depth=0)
        when = f" {self._one(_WHEN)}" if self._often(0.2) else ""
        return f"{subject} {self._predicate(plural, depth=0)}{when}"

    def _group(self, depth: int) -> tuple[str, bool]:
        """Return a noun with what belongs to it, and whether it is plural."""
        plural = self._often(0.4)
        words = [self._one(_NUMBERS) if plural and self._often(0.5) else "the"]
        if self._often(0.3):
            words.append(self._one(_ADJECTIVES))
        words.append(self._one(_NOUNS) + ("s" if plural else ""))
        # Each level is rarer than the one above, so that sentences end.
        if self._often(0.25 / (1 + depth)):
            words += ["that", self._predicate(plural, depth + 1)]
        elif self._often(0.2 / (1 + depth)):
            words += [self._one(_PLACES), self._group(depth + 1)[0]]
        return " ".join(words), plural

    def _predicate(self, plural: bool, depth: int) -> str:
        ending = "" if plural else "s"
        if self._often(0.4):
            return self._one(_MOVES) + ending
        return f"{self._one(_ACTS)}{ending} {self._group(depth + 1)[0]}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
