"""Pages on claims that did not come out: what was tried, and what makes the claim come out or that nothing does."""

from pathlib import Path

from runner.config.errors import InputError
from runner.report.claims import Verdict
from runner.report.evidence import Block
from runner.report.markdown import render
from runner.report.notes import Notes, link
from runner.report.published import Exhibit

LINES = 20
"""More are not read; what is found out fits."""
NOT_YET = "why is not found out yet"


class Failures:
    """Writes a page for each claim that fails and that the remarks have a section about.

    The section's heading is `## <paper>/<table>: <claim>`. A claim that fails without one is said to be open.
    """

    def __init__(self, folder: Path, notes: Notes):
        """Write pages into a folder, from the sections of the remarks."""
        self._folder, self._notes = folder, notes
        self._pages: dict[tuple[str, int], Path | None] = {}

    @property
    def pages(self) -> list[Path]:
        """The pages that were written."""
        return [page for page in self._pages.values() if page is not None]

    def told(self, exhibit: Exhibit, block: Block, number: int, page: Path) -> str:
        """Return what a page says beside a verdict, in Markdown: a link to what was found out, or that nothing was.

        Args:
            exhibit: the table or figure.
            block: the runs that judge its claims.
            number: the claim's, from 0.
            page: where it is said.

        Raises:
            InputError: if what was found out has more than `LINES` lines.
            OSError: if its page cannot be written.
        """
        verdict = block.verdicts[number]
        if verdict.word != "fails" or not block.judged:
            return ""
        key = exhibit.id, number
        if key not in self._pages:
            self._pages[key] = self._write(exhibit, number, verdict)
        found = self._pages[key]
        return NOT_YET if found is None else f"[what was found out]({link(found, page)})"

    def _write(self, exhibit: Exhibit, number: int, verdict: Verdict) -> Path | None:
        page = self._folder / f"{exhibit.folder}-{exhibit.name}-claim{number + 1}.md"
        title = f"{exhibit.id}: {verdict.claim.text}"
        text = self._notes.take(title, page)
        if not text:
            return None
        if (lines := len(text.splitlines())) > LINES:
            raise InputError.of("--notes", title, f"has {lines} lines", f"at most {LINES}")
        back = link(self._folder / f"{exhibit.folder}.md", page)
        render("failure.md.j2", page, exhibit=exhibit, verdict=verdict, text=text, back=back)
        return page
