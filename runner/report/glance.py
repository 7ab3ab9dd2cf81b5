"""The claims that the papers stand for, and what runs of some length say about each."""

from collections.abc import Sequence
from dataclasses import dataclass

from runner.report.claims import UNMEASURED, WORDS, Verdict
from runner.report.evidence import Block
from runner.report.published import Exhibit

SCALES = ("paper", "short")
"""The scales that judge, the one whose word counts first."""


@dataclass(frozen=True)
class Judged:
    """A claim's verdict and where it comes from.

    Attributes:
        exhibit: the table or figure.
        block: the runs.
        verdict: what they say.
    """

    exhibit: Exhibit
    block: Block
    verdict: Verdict


@dataclass(frozen=True)
class Central:
    """A central claim of a paper: several claims about tables and figures can say it.

    Attributes:
        folder: the paper's, as `dc_asgd_icml2017`.
        words: the claim in a few words.
        judged: the verdicts of those of its claims that were measured.
        unmeasured: how many were not.
        commands: what would measure these.
    """

    folder: str
    words: str
    judged: Sequence[Judged]
    unmeasured: int
    commands: Sequence[str]

    @property
    def verdict(self) -> str:
        """The one word of all its verdicts, or how many there are of each."""
        found = [one.verdict.word for one in self.judged]
        if not found:
            return UNMEASURED
        counts = {word: found.count(word) for word in WORDS if word in found}
        return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{n} {word}" for word, n in counts.items())


def central_claims(evidence: Sequence[tuple[Exhibit, Sequence[Block]]]) -> list[Central]:
    """Return the central claims in the order of the papers.

    A claim is judged by runs of the paper's scale if there are any, else by those of `short`; by others never.

    Args:
        evidence: the exhibits and what was measured of them.
    """
    found: dict[tuple[str, str], list[tuple[Exhibit, Judged | None]]] = {}
    for exhibit, blocks in evidence:
        for number, claim in enumerate(exhibit.claims):
            if claim.central:
                # The folder, since chapters of a thesis are papers of their own names.
                of_claim = found.setdefault((exhibit.folder, claim.central), [])
                of_claim.append((exhibit, _judged(exhibit, blocks, number)))
    return [
        Central(
            folder,
            words,
            [judged for _, judged in told if judged is not None],
            sum(judged is None for _, judged in told),
            list(dict.fromkeys(exhibit.command for exhibit, judged in told if judged is None)),
        )
        for (folder, words), told in found.items()
    ]


def _judged(exhibit: Exhibit, blocks: Sequence[Block], number: int) -> Judged | None:
    """Return what the longest runs say of a claim, None if they say nothing."""
    able = [block for scale in SCALES for block in blocks if block.scale == scale]
    measured = (block for block in able if block.verdicts[number].word != UNMEASURED)
    return next((Judged(exhibit, block, block.verdicts[number]) for block in measured), None)
