"""Rewrites links that lead to files of the repository, so that they hold on the site as they do on GitHub."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from docs.generate.modules import page_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "RESULTS.md": "results.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Files outside of docs/ that are pages of the site, and the names that they have there."""
_LINK = re.compile(r"(!?)\[((?:\\.|[^\[\]\\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


class DeadLink(ValueError):
    """A link leads to a file that does not exist."""


def source_of(page: str) -> str:
    """Return the file of the repository that a page of the site is made of."""
    return next((source for source, name in PAGES.items() if name == page), f"docs/{page}")


def rewrite(markdown: str, page: str, on_site: Callable[[str], bool]) -> str:
    """Return a page with its relative links as they have to be on the site.

    Args:
        markdown: the page as it is in the repository.
        page: its name on the site.
        on_site: whether a file of docs/, named from there, is on the site.

    Raises:
        DeadLink: a link leads nowhere.
    """
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _prose(part, page, on_site) for part in parts)


def _prose(text: str, page: str, on_site: Callable[[str], bool]) -> str:
    """Rewrite the links of what is no code."""
    here = posixpath.dirname(source_of(page))

    def replace(match: re.Match[str]) -> str:
        mark, words, target, anchor = match[1], match[2], match[3], match[4] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        there = posixpath.normpath(posixpath.join(here, target))
        if not (ROOT / there).exists():
            raise DeadLink(f"{source_of(page)} links to {target}, which does not exist")
        found = _on_site(there, anchor, on_site)
        # What has no page, as a folder of runs, is named and not linked.
        return f"{mark}[{words}]({posixpath.relpath(found, posixpath.dirname(page) or '.')})" if found else words

    return _LINK.sub(replace, text)


def _on_site(there: str, anchor: str, on_site: Callable[[str], bool]) -> str | None:
    """Return where a file of the repository is on the site; None if it is not."""
    if there in PAGES:
        return PAGES[there] + anchor
    if there.startswith("docs/") and on_site(there.removeprefix("docs/")):
        return there.removeprefix("docs/") + anchor
    parts = there.split("/")
    if there.endswith(".py") and parts[0] in ("algorithms", "models", "data", "runner"):
        module = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
        return f"reference/code/{page_of(module)}.md#{module}"
    return None
