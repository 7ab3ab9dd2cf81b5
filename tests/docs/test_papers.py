"""docs/papers.yaml lists every table and figure of the papers, and what it says of each is so."""

import functools
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.report import published

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAPER_TEXTS = Path(os.environ.get("DCRUN_TEST_PAPERS") or REPOSITORY.parent / "shared" / "papers")
PAPERS: dict[str, dict[str, Any]] = yaml.safe_load((DOCS / "papers.yaml").read_text(encoding="utf-8"))
# As many as the papers have, in their own numbering: (figures, tables).
COUNTS = {
    "dc_asgd_icml2017": (5, 2),
    "dc_asgd_preprint2016": (5, 0),
    "dasgd_iclr2022": (5, 1),
    "huo_thesis2020": (28, 7),
}
TEXTS = {
    "dc_asgd_icml2017": "dc_asgd_icml2017",
    "dc_asgd_preprint2016": "dc_asgd_2016_preprint",
    "dasgd_iclr2022": "dasgd_iclr2022",
    "huo_thesis2020": "huo_thesis_2020",
}
# How many lines around a mention of a table or figure are about it.
NEAR = 15
# What a table of ours says of a run without a number, which notes explain.
OUR_WORDS = {"diverged", "not reached"}
UNMEASURED = ("diagram", "description")
EXHIBITS = published.load()


def entries(item: Any) -> list[Any]:
    return item if isinstance(item, list) else [item]


ITEMS = [
    (paper, name, entry) for paper, items in PAPERS.items() for name, item in items.items() for entry in entries(item)
]


def sources(paper: str, experiment: str) -> set[str]:
    """The items, as "figure 17", that exhibits measured by an experiment name as their source."""
    found = set()
    for exhibit in EXHIBITS:
        if exhibit.folder == paper and exhibit.command == f"dcrun experiment={experiment}":
            # "figures 17, 18 and 19" and "figure 5 (a)".
            for kind, numbers in re.findall(r"(figure|table)s? ((?:\d+(?:, | and )?)+)", exhibit.source):
                found |= {f"{kind} {number}" for number in re.findall(r"\d+", numbers)}
    return found


@pytest.mark.parametrize("paper", COUNTS)
def test_every_table_and_figure_is_listed(paper: str) -> None:
    figures, tables = COUNTS[paper]
    wanted = {f"figure {n}" for n in range(1, figures + 1)} | {f"table {n}" for n in range(1, tables + 1)}
    assert set(PAPERS[paper]) == wanted
    assert set(PAPERS) == set(COUNTS)


@pytest.mark.parametrize(("paper", "item", "entry"), ITEMS)
def test_what_is_said_of_an_item_is_so(paper: str, item: str, entry: Any) -> None:
    if isinstance(entry, dict):
        assert set(entry) == {"missing", "because"}
        assert entry["because"]
        there = [exhibit.id for exhibit in EXHIBITS if exhibit.id == f"{paper}/{entry['missing']}"]
        assert not there, f"{item} is measured now, by {there}: take it out of the missing ones"
        assert not (published.EXPERIMENTS / paper / f"{entry['missing']}.yaml").exists()
    elif entry not in UNMEASURED:
        assert (published.EXPERIMENTS / f"{entry}.yaml").is_file()
        assert item in sources(paper, entry), f"no exhibit that {entry} measures names {item} as its source"


@pytest.mark.parametrize("paper", COUNTS)
def test_no_exhibit_is_of_an_unlisted_item(paper: str) -> None:
    for exhibit in EXHIBITS:
        experiment = exhibit.command.removeprefix("dcrun experiment=")
        for item in sources(paper, experiment) if exhibit.folder == paper else ():
            assert experiment in entries(PAPERS[paper][item]), f"{exhibit.id} is of {item}"


def test_every_claim_and_number_has_its_place() -> None:
    for exhibit in EXHIBITS:
        assert exhibit.source
        for claim in exhibit.claims:
            # A section, a table or a figure of the paper: a claim of our own is none of the paper's.
            assert re.match(r"(section|table|figure|appendix|abstract|discussion|conclusion) ?[\w.]*", claim.source), (
                f"{exhibit.id}: {claim.text}: {claim.source}"
            )


def test_every_claim_has_the_papers_words() -> None:
    for exhibit in EXHIBITS:
        told: set[str] = set()
        for claim in exhibit.claims:
            if claim.words:
                told.add(claim.source)
            # What is read off a table needs no words, and those of a section may stand at the first of several claims.
            assert claim.source in told or claim.source.startswith(("table", "figure")), f"{exhibit.id}: {claim.text}"


@functools.cache
def lines_of(paper: str) -> list[str]:
    """The paper's text in plain letters."""
    path = PAPER_TEXTS / f"{TEXTS[paper]}.txt"
    if not path.is_file():
        pytest.skip(f"no text of the paper: {path} does not exist (set DCRUN_TEST_PAPERS to a folder with {path.name})")
    return plain(path.read_text(encoding="utf-8")).splitlines()


def plain(text: str) -> str:
    """Without the marks of a transcription; Greek letters are themselves, and their indices stand behind them."""
    for name, letter in (("lambda", "λ"), ("gamma", "γ"), ("eta", "η"), ("mu", "μ")):
        text = text.replace(f"\\{name}", letter)
    return re.sub(r"</?b>|[$*\\_{}]", "", text)


def place(source: str) -> str:
    """What the line begins with to which a source leads: a heading, or the caption of a table or figure."""
    kind, _, number = source.partition(" ")
    number = re.match(r"[\dA-Z.]*", number)[0].rstrip(".")  # pyright: ignore[reportOptionalSubscript]
    if kind in ("table", "figure"):
        return rf"{kind.capitalize()} {number}[.:]"
    return rf"#*\s*{re.escape(number)}\.?\s+[A-Z]"


def written(published: float, metric: str) -> str:
    """How a published number may stand in a text; the transcription of one table has lost two decimal points."""
    forms = [re.escape(f"{published:g}"), re.escape(f"{published:.2f}")]
    if "accuracy" in metric:
        forms = [rf"0?\.?{f'{published:.4f}'[2:]}", re.escape(f"{100 * published:.2f}")]
    return rf"(?<![\d.])(?:{'|'.join(forms)})(?!\d)"


def numbers(exhibit: published.Exhibit) -> list[str]:
    found = [cell.published for cell in exhibit.cells if cell.published is not None]
    return [written(number, exhibit.metric) for number in found]


# The leaderboard's are second hand, and say so.
PUBLISHED = [exhibit for exhibit in EXHIBITS if numbers(exhibit) and exhibit.folder in TEXTS]


@pytest.mark.parametrize("exhibit", PUBLISHED, ids=lambda exhibit: exhibit.id)
def test_every_published_number_is_in_the_text(exhibit: published.Exhibit) -> None:
    lines = lines_of(exhibit.folder)
    # A figure's numbers may be those of a table, of another figure or of a section, which its note then names.
    items = re.findall(r"(table|figure|section) ([\d.]*\d)", f"{exhibit.source} {exhibit.note}")
    mention = "|".join(
        rf"^{place(f'section {number}')}" if kind == "section" else rf"\b{kind[:3]}\w*\.? {number}\b"
        for kind, number in items
    )
    near = {n for n, line in enumerate(lines) if items and re.search(mention, line, re.IGNORECASE)}
    about = "\n".join(line for n, line in enumerate(lines) if near & set(range(n - NEAR, n + NEAR + 1)))
    missing = [number for number in numbers(exhibit) if not re.search(number, about)]
    assert not missing, f"{exhibit.id}: not within {NEAR} lines of where the text speaks of {items}"
    if exhibit.kind == "table":
        # In the order of the paper's rows and columns: two numbers that are exchanged are two wrong ones.
        (caption,) = [n for n, line in enumerate(lines) if re.match(place(exhibit.source), line)]
        assert re.search(".*?".join(numbers(exhibit)), "\n".join(lines[caption : caption + NEAR]), re.DOTALL)


@pytest.mark.parametrize("paper", COUNTS)
def test_every_claim_is_of_a_place_in_the_text(paper: str) -> None:
    lines = lines_of(paper)
    for source in sorted({claim.source for e in EXHIBITS if e.folder == paper for claim in e.claims}):
        assert any(re.match(place(source), line) for line in lines), f"{paper}: {source} is not in the text"


@pytest.mark.parametrize("paper", COUNTS)
def test_what_is_quoted_is_in_the_text(paper: str) -> None:
    text = " ".join(" ".join(lines_of(paper)).split()).lower()
    exhibits = [exhibit for exhibit in EXHIBITS if exhibit.folder == paper]
    parts = [part for e in exhibits for part in (e.note, *(claim.words for claim in e.claims))]
    said = {quote for part in parts for quote in re.findall(r'"([^"]+)"', part)}
    missing = sorted(quote for quote in said - OUR_WORDS if plain(quote).lower() not in text)
    assert not missing, f"{paper}: quoted, but not in the text"
