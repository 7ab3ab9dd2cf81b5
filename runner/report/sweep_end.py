"""What a sweep ends with on the terminal: its methods ranked as on the page, and of an experiment the paper beside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from runner.report import wandb_table
from runner.run_folder.summary_keys import DIVERGED, FAILED

if TYPE_CHECKING:
    from runner.report.ranking import Ranking

# More settings than a reader takes in at a terminal are on the page.
_SETTINGS = 6
_QUICK = "quick"


def print_result(console: Console, folders: Iterable[Path]) -> None:
    """Print a table for each setting of a sweep in which something can be compared.

    Args:
        console: where to.
        folders: the run folders of its jobs.
    """
    # SciPy, which the intervals need, takes over a second to import, and `dcrun` imports this module for every command.
    from runner.report.collect import collect
    from runner.report.ranking import rankings

    runs = collect(folder for folder in folders if folder.is_dir())
    if runs and all(run.status in (DIVERGED, FAILED) for run in runs):
        counts = ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in runs).items())
        console.print(Text(f"none of the {len(runs)} runs came to its end ({counts}): there is nothing to rank"))
        return
    found = [
        ranking
        for ranking in rankings(runs)
        if any(row.values for row in ranking.rows) and (len(ranking.rows) > 1 or len(ranking.rows[0].runs) > 1)
    ]
    for ranking in found[:_SETTINGS]:
        _print_ranking(console, ranking)
    if len(found) > _SETTINGS:
        console.print(Text(f"{len(found) - _SETTINGS} more settings are on the page"))


def print_evidence(console: Console, experiment: str, scale: str | None, sweep: Path, folders: Iterable[Path]) -> None:
    """Print what an experiment measured beside what its paper reports, and the verdicts on the paper's claims.

    Args:
        console: where to.
        experiment: as `dc_asgd_icml2017/table1`.
        scale: at which it ran; at quick scale numbers are not compared.
        sweep: the sweep's folder.
        folders: the run folders of its jobs.

    Raises:
        InputError: an archive that lies beside the sweep cannot be read.
    """
    # The sweep's parent: an experiment is often run in parts, and its table needs the earlier ones.
    tables = wandb_table.evaluated(experiment, sweep.parent, {folder.resolve() for folder in folders})
    for name, (columns, rows) in tables.items():
        exhibit, _, kind = name.rpartition("/")
        if kind == "claims":
            _print_claims(console, exhibit, [dict(zip(columns, row, strict=True)) for row in rows])
        else:
            _print_cells(console, exhibit, scale, [dict(zip(columns, row, strict=True)) for row in rows])


def _print_ranking(console: Console, ranking: Ranking) -> None:
    # As above.
    from runner.report import results_section

    told = results_section.section(ranking, 1)
    table = Table(title=Text(f"{told['title']} ({told['detail']})"), title_justify="left")
    table.add_column("", justify="right")
    table.add_column("method", overflow="fold")
    for head in (told["metric"], *([told["beside"]] if told["beside"] else []), "seeds"):
        table.add_column(head, justify="right")
    table.add_column("ahead of the next by")
    # Virtual seconds are not those that the sweep took.
    for head in (*(f"{clock} s" for clock in told["clocks"]), *(["sent"] if told["has_bytes"] else [])):
        table.add_column(head, justify="right")
    for row in told["rows"]:
        cells = [
            str(row["place"]),
            Text(f"{row['method']} {row['apart']}".strip()),
            row["value"],
            *([row["beside"]] if told["beside"] else []),
            row["statuses"] or str(row["seeds"]),
            f"{row['gap']} {row['word']}".strip(),
            *row["seconds"],
            *([row["sent"]] if told["has_bytes"] else []),
        ]
        table.add_row(*cells, style="bold" if row["best"] else "")
    console.print(table)
    if told["all"]:
        console.print(Text(f"the best of each method; all {len(told['all'])} settings are on the page"))
    console.print(Text(results_section.answer(ranking)), soft_wrap=True)


def _print_cells(console: Console, exhibit: str, scale: str | None, rows: Sequence[dict[str, Any]]) -> None:
    # As above.
    from runner.report import metrics

    # Without scale the numbers of a paper are compared, at quick scale only their order.
    numbers = scale != _QUICK
    table = Table(title=Text(f"{exhibit}: measured beside published"), title_justify="left")
    for head in ("setting", "row", "column"):
        table.add_column(head, overflow="fold")
    for head in ("measured", "published", *(["difference"] if numbers else [])):
        table.add_column(head, justify="right")
    before = None
    for row in rows:
        measured = metrics.with_spread("", row["measured"], row["spread"])
        cells = ["" if row["setting"] == before else row["setting"], row["row"], row["column"], measured]
        before = row["setting"]
        cells.append("–" if row["published"] is None else f"{row['published']:g}")
        if numbers:
            cells.append("" if row["difference"] is None else f"{row['difference']:+.4g}")
        table.add_row(*map(escape, cells))
    console.print(table)


def _print_claims(console: Console, exhibit: str, rows: Sequence[dict[str, Any]]) -> None:
    counts = Counter(row["verdict"] for row in rows)
    console.print(Text(f"{exhibit}: claims of the paper: {', '.join(f'{n} {word}' for word, n in counts.items())}"))
    for row in rows:
        # What is open says nothing yet; the page has it.
        if row["verdict"] in ("holds", "fails"):
            style = "green" if row["verdict"] == "holds" else "red"
            console.print(Text.assemble((f"  {row['verdict']} ", style), row["claim"], f": {row['because']}"))
