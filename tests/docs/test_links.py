"""Links of the repository hold on the site: to pages, to code, to files that are no pages."""

import pytest

from docs.generate.links import PAGES, ROOT, DeadLink, rewrite

SITE = {"gpu.md", "repeat.md", "figures/runs-1.png", "results/other_runs.md"}


def rewritten(text: str, page: str) -> str:
    return rewrite(text, page, lambda path: path in SITE)


@pytest.mark.parametrize(
    ("text", "page", "expected"),
    [
        ("[a](docs/gpu.md#precision)", "index.md", "[a](gpu.md#precision)"),
        ("[a](../RESULTS.md)", "short.md", "[a](results.md)"),
        ("[a](../../RESULTS.md)", "results/other_runs.md", "[a](../results.md)"),
        ("![a](../figures/runs-1.png)", "results/other_runs.md", "![a](../figures/runs-1.png)"),
        ("[a](../algorithms/asgd.py)", "gpu.md", "[a](reference/code/algorithms.md#algorithms.asgd)"),
        ("[a](../runner/train/executors.py)", "gpu.md", "[a](reference/code/runner_train.md#runner.train.executors)"),
        ("see [the runs](runs), or [a](https://b.org/c)", "gpu.md", "see the runs, or [a](https://b.org/c)"),
        ("[a](#b)", "gpu.md", "[a](#b)"),
        ("```\n[a](nowhere.md)\n```", "gpu.md", "```\n[a](nowhere.md)\n```"),
    ],
)
def test_links_are_rewritten(text: str, page: str, expected: str):
    assert rewritten(text, page) == expected


def test_a_dead_link_is_named():
    with pytest.raises(DeadLink, match=r"docs/gpu.md links to nowhere.md, which does not exist"):
        rewritten("[a](nowhere.md)", "gpu.md")


def test_no_page_has_a_dead_link():
    docs = ROOT / "docs"
    pages = {page: ROOT / source for source, page in PAGES.items()}
    pages |= {str(path.relative_to(docs)): path for path in docs.rglob("*.md")}
    assert {"index.md", "concepts.md", "results/huo_thesis2020.md"} <= set(pages)
    for page, path in pages.items():
        rewrite(path.read_text(encoding="utf-8"), page, lambda name: (docs / name).exists())


def test_the_menu_has_every_page():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert [page for page in sorted(pages) if f" {page}\n" not in menu] == []
