"""Prints a run: a line of aligned columns for each evaluation, and a table with the result at its end."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.config.paths import as_typed
from runner.run_folder import columns
from runner.run_folder.contents import has_checkpoints
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    BYTES_SENT,
    COMPLETED,
    DIVERGED,
    FAILED,
    FINAL_TEST_ERROR,
    FINAL_VALIDATION_ERROR,
    INTERRUPTED,
    PRUNED,
    RUNNING,
    STATUS,
    TEST_ERROR_AT_BEST,
    TEST_SAMPLES,
    TIMING_ONLY,
    TRAIN_SAMPLES,
    VALIDATION_SAMPLES,
)
from runner.run_folder.timing_result import bytes_text, timing_rows

PIPED_WIDTH = 160
"""Characters of a line that goes to a file or a pipe; `metrics.jsonl` has what does not fit."""
_FURTHER = {
    columns.DUALITY_GAP: (2, "duality gap"),
    columns.SUBOPTIMALITY: (2, "suboptimality"),
    columns.PRIMAL: (9, "primal"),
    columns.DUAL: (9, "dual"),
    columns.DISAGREEMENT_MEAN: (8, "apart"),
    columns.DISAGREEMENT_MAX: (9, "at most"),
    columns.GAP_MEAN: (8, "gap"),
    columns.GAP_MAX: (9, "at most"),
    columns.UPDATE_COSINE: (9, "cosine of updates"),
    columns.COMMUNICATION_SECONDS: (9, "communication"),
    columns.HIDDEN_SECONDS: (9, "of it hidden"),
    columns.ACTIVATION_BYTES: (9, "activations"),
    columns.TEST_ERROR_TOP5: (2, "top-5 error"),
    columns.VALIDATION_ERROR_TOP5: (3, "top-5 validation error"),
    columns.TEST_PERPLEXITY: (2, "perplexity"),
    columns.VALIDATION_PERPLEXITY: (3, "validation perplexity"),
}
"""Rank and name of what some runs have besides; what a method of the user's adds comes under its own name."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_COLORS = {
    COMPLETED: "green",
    DIVERGED: "red",
    FAILED: "red",
    **dict.fromkeys((INTERRUPTED, PRUNED, RUNNING), "yellow"),
}


def seconds_unit(virtual: bool) -> str:
    """Return the unit of seconds: 'virtual s' on the clock of a simulated cluster, 's' for measured time."""
    return "virtual s" if virtual else "s"


def row_line(
    row: Mapping[str, Any],
    epochs: float,
    unit: str,
    samples_per_second: float | None = None,
    *,
    width: int | None = None,
) -> str:
    """Return an evaluation as a line of aligned columns, of those that the row has.

    Args:
        row: a line of `metrics.jsonl`.
        epochs: effective passes of the whole run.
        unit: unit of the row's seconds, from `seconds_unit`.
        samples_per_second: shown if given.
        width: available characters; less important columns are left out to fit. None shows all columns.
    """
    parts = [(0, f"epoch {_cell(row.get('epoch'), '.2f', len(f'{epochs:.2f}'))}/{epochs:g}")]
    # In the order of the line; the first number is the importance, 1 being the last to be left out.
    for rank, key, label, form, size, suffix in (
        (1, columns.TEST_ERROR, "test error", ".2f", 6, " %"),
        (1, columns.VALIDATION_ERROR, "validation error", ".2f", 6, " %"),
        (8, columns.TEST_LOSS, "test loss", ".4f", 6, ""),
        (8, columns.VALIDATION_LOSS, "validation loss", ".4f", 6, ""),
        (7, columns.TRAIN_ERROR, "train error", ".2f", 6, " %"),
        (2, columns.TRAIN_LOSS, "train loss", ".4f", 6, ""),
        (6, columns.LR, "lr", ".4g", 7, ""),
        (5, columns.STALENESS_MEAN, "staleness", ".1f", 4, ""),
        (9, columns.STALENESS_MAX, "max", ".0f", 3, ""),
    ):
        if key in row:
            parts.append((rank, f"{label} {_cell(row[key], form, size)}{suffix}"))
    # Standard columns are formatted above, or repeat what another column shows.
    known = {*columns.STANDARD, columns.VALIDATION_LOSS, columns.VALIDATION_ERROR}
    parts += [_further(key, value, unit) for key, value in row.items() if key not in known]
    if "seconds" in row:
        parts.append((4, f"{_cell(row['seconds'], ',.1f', 8)} {unit}"))
    if samples_per_second is not None:
        parts.append((3, f"{_cell(samples_per_second, ',.0f', 7)} samples/s"))
    return _fit(parts, width)


def show_result(
    console: Console, summary: Mapping[str, Any], folder: Path, *, lr: float | None = None, curve: Sequence[Any] = ()
) -> None:
    """Print a run's result: a small table, a hint if the user can do something, and the run folder.

    Args:
        console: where to print.
        summary: the content of `summary.json`; its `clock` says whether seconds are virtual or measured.
        folder: the run folder.
        lr: `schedule.lr` of the run, for the hint of a diverged one.
        curve: test errors of all evaluations in percent, drawn as a small curve.
    """
    status = str(summary.get(STATUS))
    unit = seconds_unit(summary.get("clock") == "virtual")
    rows = {
        "algorithm": str(summary.get("algorithm")),
        "model": str(summary.get("model")),
        "dataset": str(summary.get("dataset")),
        "samples": sizes_line(summary) if summary.get(VALIDATION_SAMPLES) is not None else "",
        "workers": f"{summary.get('workers')} ({summary.get('cluster')})",
        "epochs": _cell(summary.get("epochs"), "g", 0),
        **(timing_rows(summary) if summary.get(TIMING_ONLY) else _error_rows(console, summary, curve)),
        "time": f"{_cell(summary.get('seconds'), ',.1f', 0)} {unit}",
        "wall time": wall_line(summary),
        **({"slowest": slowest_line(summary)} if summary.get(TIMING_ONLY) else _worker_rows(summary)),
    }
    # Text, since rich would take [...] in a value for markup.
    table = Table(show_header=False, title=None)
    table.add_column(style="bold")
    table.add_column()
    for label, value in rows.items():
        if value:
            table.add_row(label, Text(value))
    table.add_row("status", Text(status, style=_COLORS.get(status, "")))
    console.print(table)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())  # shorter to copy
    hint = _hint(status, summary, folder, lr)
    for text in filter(None, (hint, f"run folder: {folder}")):
        console.print(Text(text), soft_wrap=True, highlight=False)


def sizes_line(summary: Mapping[str, Any]) -> str:
    """Return the sizes of the splits that there are."""
    splits = (("train", TRAIN_SAMPLES), ("validation", VALIDATION_SAMPLES), ("test", TEST_SAMPLES))
    return ", ".join(f"{name} {summary[key]:,}" for name, key in splits if summary.get(key) is not None)


def wall_line(summary: Mapping[str, Any]) -> str:
    """Return the seconds from the command to the end, and how many of them went by before the first step."""
    wall, start = summary.get("wall_seconds"), summary.get("start_seconds")
    # Summaries from before the start was counted do not have it.
    if wall is None or start is None:
        return f"{_cell(wall, ',.1f', 0)} s"
    return f"{wall + start:,.1f} s, {start:,.1f} s of them from the command to the first step"


def _error_rows(console: Console, summary: Mapping[str, Any], curve: Sequence[Any]) -> dict[str, str]:
    """Return the rows of a table that say how good the trained weights are."""
    best, final = (_percent(summary, key) for key in (BEST_TEST_ERROR, FINAL_TEST_ERROR))
    tested = f"best {best}, final {final}"
    validated = ""
    if summary.get(BEST_VALIDATION_ERROR) is not None:
        # The best of the test errors would be one that was chosen on the test set.
        tested = f"{_percent(summary, TEST_ERROR_AT_BEST)} at the best validation error, final {final}"
        lowest, last = (_percent(summary, key) for key in (BEST_VALIDATION_ERROR, FINAL_VALIDATION_ERROR))
        validated = f"best {lowest}, final {last}"
    gaps = {"suboptimality": columns.SUBOPTIMALITY, "duality gap": columns.DUALITY_GAP}
    return {
        # A model with an objective but no test data, as ridge regression, has its suboptimality instead.
        "test error": "" if final == "- %" and (validated or columns.PRIMAL in summary) else tested,
        "validation error": validated,
        **{label: _cell(summary.get(key), ".4g", 0) for label, key in gaps.items() if key in summary},
        # In another encoding the blocks would be question marks, or raise.
        "curve": sparkline(curve) if console.encoding.startswith("utf") else "",
    }


def _worker_rows(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows of a table that only workers which computed have."""
    return {
        "speed": f"{_cell(summary.get('samples_per_second'), ',.0f', 0)} samples/s",
        # Without a value there is no row: most runs lose nobody.
        "lost workers": str(summary.get("workers_lost") or ""),
        "slowest": slowest_line(summary),
        "staleness": staleness_line(summary.get("staleness_by_worker") or ()),
        # A run of one worker may send nothing.
        "sent": bytes_text(summary[BYTES_SENT]) if summary.get(BYTES_SENT) else "",
    }


def slowest_line(summary: Mapping[str, Any]) -> str:
    """Return the slowest worker and how much it waits itself; empty if the summary does not have them."""
    slowest = summary.get("slowest")
    if not slowest:
        return ""
    seconds = f"{_cell(slowest['seconds_per_gradient'], '.3g', 0)} {seconds_unit(summary.get('clock') == 'virtual')}"
    times = f"{_cell(slowest['times_median'], '.2f', 0)} x the median"
    line = f"worker {slowest['worker']}: {seconds} a gradient, {times}"
    share = slowest["waiting_share"]
    return (
        line if share is None else f"{line}; its own waiting is {_cell(100 * share, '.0f', 0)} % of that of all workers"
    )


def staleness_line(values: Sequence[float | None]) -> str:
    """Return the mean staleness of each worker, only the lowest and highest if there are many; empty if none pushed."""
    known = [(value, worker) for worker, value in enumerate(values) if value is not None]
    # A line of a terminal has no room for more.
    if len(known) > 8:
        ends = (("lowest", min(known)), ("highest", max(known)))
        return ", ".join(f"{name} worker {worker}: {value:.1f}" for name, (value, worker) in ends)
    return ", ".join(f"worker {worker}: {value:.1f}" for value, worker in known)


def sparkline(values: Sequence[Any], width: int = 40) -> str:
    """Return values as bars from zero to the largest, at most `width` of them; empty for fewer than two finite ones."""
    # A diverged run ends with NaN, which has no bar.
    finite = [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if len(finite) < 2:
        return ""
    if len(finite) > width:
        # Evenly spread, with the first and the last value.
        finite = [finite[round(index * (len(finite) - 1) / (width - 1))] for index in range(width)]
    # Errors of 0 throughout must not divide by zero.
    top = max(finite) or 1.0
    return "".join(_BLOCKS[min(int(max(value, 0.0) / top * len(_BLOCKS)), len(_BLOCKS) - 1)] for value in finite)


def duration(seconds: float) -> str:
    """Return seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _hint(status: str, summary: Mapping[str, Any], folder: Path, lr: float | None) -> str:
    if status == DIVERGED:
        now = "" if lr is None else f" (it is {lr:g})"
        said = str(summary.get("error") or "the loss is infinite or NaN")
        return f"{said[0].upper()}{said[1:]}: try a smaller schedule.lr{now}, or a warm-up: schedule.warmup_epochs=5"
    if status in (INTERRUPTED, PRUNED):
        return f"Continue with: dcrun {as_typed('run.resume', folder)}" if has_checkpoints(folder) else ""
    return str(summary.get("error") or "") if status == FAILED else ""


def _further(key: str, value: Any, unit: str) -> tuple[int, str]:
    """Return rank and text of a column that not every run has."""
    # Of single modules: their sum is enough for a line, so they go first.
    rank, name = _FURTHER.get(
        key, (11 if key.startswith(f"{columns.ACTIVATION_BYTES}_") else 10, key.replace("_", " "))
    )
    if key.startswith(columns.ACTIVATION_BYTES) and value is not None:
        return rank, f"{name} {bytes_text(value):>7}"
    if key in (columns.COMMUNICATION_SECONDS, columns.HIDDEN_SECONDS):
        return rank, f"{name} {_cell(value, ',.1f', 8)} {unit}"
    if key in (columns.TEST_ERROR_TOP5, columns.VALIDATION_ERROR_TOP5):
        return rank, f"{name} {_cell(value, '.2f', 6)} %"
    return rank, f"{name} {_cell(value, '.4g', 10)}"


def _fit(parts: list[tuple[int, str]], width: int | None) -> str:
    """Join texts; leave out those with the largest rank until the line fits."""
    parts = list(parts)
    # One part always stays, however narrow the terminal is.
    while len(text := "  ".join(part for _, part in parts)) > (width or math.inf) and len(parts) > 1:
        # Of equal ranks the label decides, so every line leaves out the same columns.
        parts.remove(max(parts))
    return text


def _percent(summary: Mapping[str, Any], key: str) -> str:
    return f"{_cell(summary.get(key), '.2f', 0)} %"


def _cell(value: Any, form: str, width: int) -> str:
    """Return a number padded to its width; '-' if it is missing or not finite.

    A number that would break the columns has fewer decimals, or is written as 6.4e9.
    """
    if isinstance(value, str):
        return value.rjust(width)
    number = None if value is None else float(value)
    if number is None or not math.isfinite(number):
        return "-".rjust(width)
    text = format(number, form)
    if width and len(text) > width and form in (".4f", ".2f", ".1f"):
        whole = len(f"{number:.0f}")
        # A last digit and the point need two places.
        text = f"{number:.{max(width - whole - 1, 0)}f}"
        if len(text) > width:
            text = min(text, f"{number:.1e}".replace("e+0", "e").replace("e+", "e"), key=len)
    return text.rjust(width)
