"""What MkDocs calls while it builds the site (`make docs`): pages that are made from the code, and links."""

from __future__ import annotations

from typing import Any

# MkDocs is an extra, and need not be there for whoever checks types.
from mkdocs.config.defaults import MkDocsConfig  # pyright: ignore[reportMissingImports]
from mkdocs.exceptions import PluginError  # pyright: ignore[reportMissingImports]
from mkdocs.structure.files import File, Files  # pyright: ignore[reportMissingImports]
from mkdocs.structure.pages import Page  # pyright: ignore[reportMissingImports]

from docs.generate import configuration, links, methods, modules

MADE = {"reference/configuration": configuration, "reference/code": modules, "methods": methods}
"""Folders of the site whose pages are made, and what makes them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    for source, page in links.PAGES.items():
        text = (links.ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for folder, maker in MADE.items():
        for name, text in maker.pages().items():
            files.append(File.generated(config, f"{folder}/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Rewrite the links of a page.

    Raises:
        PluginError: a link leads to a file that does not exist.
    """
    name = page.file.src_uri
    # Pages that are made already link to pages.
    if name.startswith(tuple(MADE)):
        return markdown
    try:
        return links.rewrite(markdown, name, lambda path: files.get_file_from_path(path) is not None)
    except links.DeadLink as exc:
        raise PluginError(str(exc)) from exc
