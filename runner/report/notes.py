"""Remarks by hand, from a Markdown file, for the pages they belong to."""

import os
import re
from pathlib import Path

# Not links with a scheme, to a heading or from the root: these mean the same on every page.
_LINK = re.compile(r"(\]\()(?![a-z]+:|[#/])([^)\s]+)")
_TOP = ""


class Notes:
    """The remarks of a file; each is given away once, so that what nobody asked for can be put at the end.

    What stands under a heading `## <paper>/<table>` belongs to that exhibit, what stands before the first heading to
    the top. Links are relative to the file of the remarks; on a page they are relative to the page.
    """

    def __init__(self, path: Path | None):
        """Read the remarks; without a path there are none.

        Raises:
            OSError: if the file cannot be read.
        """
        self._path = path
        self._remarks: dict[str, str] = {}
        if path is not None:
            top, *sections = re.split(r"^## +", path.read_text(encoding="utf-8"), flags=re.M)
            parts = (section.partition("\n") for section in sections)
            # The file's own title goes, since every page has a title.
            self._remarks = {_TOP: re.sub(r"^# .*\n", "", top).strip()}
            self._remarks |= {title.strip(): text.strip() for title, _, text in parts}

    def take(self, title: str, page: Path) -> str:
        """Return the remark under a heading for a page and forget it; empty if there is none."""
        # Popped, so that `take_rest` has what no exhibit asked for, as after a renamed table.
        return self._relinked(self._remarks.pop(title, ""), page)

    def take_top(self, page: Path) -> str:
        """Return what stands before the first heading, as `take` does."""
        return self.take(_TOP, page)

    def take_rest(self, page: Path) -> dict[str, str]:
        """Return the remarks that nobody has taken, by their headings."""
        # A list of the titles first: `take` removes entries from the dictionary that would be iterated.
        return {title: self.take(title, page) for title in [title for title in self._remarks if title != _TOP]}

    def _relinked(self, text: str, page: Path) -> str:
        def moved(found: re.Match[str]) -> str:
            assert self._path is not None
            return f"{found[1]}{link(self._path.parent / found[2], page)}"

        return _LINK.sub(moved, text)


def link(target: Path, page: Path) -> str:
    """Return a link to a file, relative to the page that it stands on."""
    return Path(os.path.relpath(target, page.parent)).as_posix()
