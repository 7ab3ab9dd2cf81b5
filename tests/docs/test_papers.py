"""docs/papers.yaml lists every table and figure of the papers, and what it says of each is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.report import published

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAPERS: dict[str, dict[str, Any]] = yaml.safe_load((DOCS / "papers.yaml").read_text(encoding="utf-8"))
# As many as the papers have, in their own numbering: (figures, tables).
COUNTS = {
    "dc_asgd_icml2017": (5, 2),
    "dc_asgd_preprint2016": (5, 0),
    "dasgd_iclr2022": (5, 1),
    "huo_thesis2020": (28, 7),
}
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
