"""What the page's scripts read of the runs: fields, curves, what workers did, and facts."""

import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from runner.report import metrics, provenance
from runner.report.evaluations import numbered, thinned
from runner.report.method_colors import color_of
from runner.report.run import Run, finite
from runner.report.settings import GROUPS, by_seed, differing, label, setting, shown
from runner.run_folder import columns
from runner.run_folder.summary_keys import (
    BEST_TEST_ERROR,
    BEST_VALIDATION_ERROR,
    FINAL_TEST_ERROR,
    FINAL_VALIDATION_ERROR,
    STATUS,
    TEST_ERROR_AT_BEST,
)

# What a sweep varied stands between the two: on a screen beside the names, not far to the right of them.
_FIRST = ("name", STATUS, "algorithm", "workers", "seed")
_NUMBERS = (FINAL_TEST_ERROR, BEST_TEST_ERROR, "final_train_loss")
_LAST = ("epochs", "samples_per_second", "model", "dataset")
# Beside the test errors, if any of the runs has a validation split.
_OF_VALIDATION = (FINAL_VALIDATION_ERROR, BEST_VALIDATION_ERROR, TEST_ERROR_AT_BEST)
# What a run that has not ended says only in its metrics.
_FROM_ROWS = {"epochs": "final_epoch", FINAL_TEST_ERROR: FINAL_TEST_ERROR, BEST_TEST_ERROR: "lowest_test_error",
              FINAL_VALIDATION_ERROR: FINAL_VALIDATION_ERROR, BEST_VALIDATION_ERROR: "lowest_validation_error",
              "final_train_loss": "final_train_loss"}  # fmt: skip
# More columns do not fit beside the others; the rest is under each run's facts.
_OWN_KEYS = 14
_OWN_FIRST = 3
_VARIED = ("algorithm", "schedule", "run")
POINTS = 400
"""More points of a curve cannot be told apart on the page."""
# All curves together: a file of a thousand runs with that many each would be slow to write and to load.
_ALL_POINTS, _FEWEST = 100_000, 100
CLOCKS = {"virtual": "virtual_seconds", "measured": "measured_seconds"}
"""Columns of seconds by the clock that measured them: those of two clocks are not comparable."""
_UNLABELLED = columns.SECONDS
_AXES = (columns.EPOCH, *CLOCKS.values(), _UNLABELLED, columns.UPDATES, columns.SAMPLES, columns.BYTES_SENT)
_DECIMALS = {"epochs": 1, **dict.fromkeys((*CLOCKS.values(), _UNLABELLED), 1), "samples_per_second": 0,
             columns.BYTES_SENT: 0, "time_to": 1}  # fmt: skip
_WORDS = {
    FINAL_TEST_ERROR: "test error, %",
    BEST_TEST_ERROR: "best test error, %",
    FINAL_VALIDATION_ERROR: "validation error, %",
    BEST_VALIDATION_ERROR: "best validation error, %",
    TEST_ERROR_AT_BEST: "test error at the best validation error, %",
    "final_train_loss": "training loss",
    "workers": "M",
    "samples_per_second": "samples/s, measured",
    "virtual_seconds": "virtual seconds",
    "measured_seconds": "measured seconds",
    columns.SECONDS: "seconds, clock unknown",
    columns.BYTES_SENT: "bytes sent",
    columns.EPOCH: "effective passes",
    columns.TEST_ERROR: "test error, %",
    columns.VALIDATION_ERROR: "validation error, %",
    columns.VALIDATION_LOSS: "validation loss",
    columns.TRAIN_ERROR: "training error, %",
    columns.TRAIN_LOSS: "training loss",
}


def payload(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the table of runs, their curves, a comparison of two and one run in detail need."""
    apart = [key for key in differing(runs) if key not in ("algorithm", "model", "dataset", "cluster.workers")]
    # `cluster=simulated` says its kind.
    own = sorted((key for key in apart if key not in ("cluster", "cluster.kind")), key=_weight)[:_OWN_KEYS]
    most = max(_FEWEST, min(POINTS, _ALL_POINTS // max(len(runs), 1)))
    groups = enumerate(_groups(runs))
    curves = {id(run): curve for number, group in groups for run, curve in _curves(number, group, most)}
    # Some columns are only in the first or only in the last row; so not every row has to be read.
    quantities = dict.fromkeys(key for run in runs for row in run.rows[:1] + run.rows[-1:] for key in row)
    numbers = [key for key in quantities if key not in _AXES]
    beside = _OF_VALIDATION if any(_field(run, BEST_VALIDATION_ERROR) is not None for run in runs) else ()
    place = _NUMBERS.index(BEST_TEST_ERROR) + 1
    clocks = [name for name in (*CLOCKS.values(), _UNLABELLED) if any(_clock(run) == name for run in runs)]
    # Runs of earlier versions did not count them.
    sent = [columns.BYTES_SENT] if any(run.number(columns.BYTES_SENT) is not None for run in runs) else []
    middle = (*_NUMBERS[:place], *beside, *_NUMBERS[place:], *clocks, *sent)
    shown_columns = [*_FIRST, *own[:_OWN_FIRST], *middle, *own[_OWN_FIRST:], *_LAST]
    errors = [error for run in runs if (error := metrics.measured(run, "lowest_test_error")) is not None]
    found = {axis for run in runs for axis in curves[id(run)]["curve"] if axis in _AXES}
    decimals = {key: n for key in (*shown_columns, *numbers) if (n := metrics.decimals(key)) is not None}
    return {
        # By identity: a run is mutable, and has no hash.
        "runs": [{**_run(run, shown_columns, apart, own), **curves[id(run)]} for run in runs],
        "columns": shown_columns,
        "varied": own,
        "metrics": [key for key in numbers if any(finite(row.get(key)) is not None for r in runs for row in r.rows)],
        "axes": [axis for axis in _AXES if axis in found] or [columns.EPOCH],
        "words": _WORDS,
        "decimals": decimals | _DECIMALS,
        # A quarter above the best error: a target that most good runs reach, so that times to reach it can be compared.
        "target": min(99, math.ceil(min(errors) * 1.25)) if errors else None,
    }


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Yield runs that differ in the seed alone; those of two versions of the program are of one group, as if ranked."""
    alike: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        alike.setdefault(tuple(run.value(part) for part in GROUPS), []).append(run)
    for same in alike.values():
        yield from by_seed(same, differing(same))


def short(value: Any) -> float | None:
    """Return a number with the digits that one can see; None for anything else."""
    number = finite(value)
    # Five digits are more than a screen shows, and keep the file small; whole numbers, as of samples, stay exact.
    return number if number is None or isinstance(number, int) else float(f"{number:.5g}")


def rounded(value: Any) -> Any:
    """Return a structure with its numbers as `short` makes them."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return short(value) if isinstance(value, float) else value


def _weight(key: str) -> int:
    """Return a key that sorts what is usually varied before what is usually a part of the problem."""
    section = key.partition(".")[0]
    return _VARIED.index(section) if section in _VARIED else len(_VARIED)


def _clock(run: Run) -> str:
    return CLOCKS.get(str(run.summary.get("clock")), _UNLABELLED)


def _run(run: Run, common: Sequence[str], apart: Sequence[str], own: Sequence[str]) -> dict[str, Any]:
    settings, facts = setting(run), _facts(run)
    fields = {key: _field(run, key) for key in common if key not in own}
    # Numbers stay numbers, so that the page sorts 10 after 9.
    for key in own:
        known = shown(settings[key]) if key in settings else None
        fields[key] = settings[key] if finite(settings.get(key)) is not None else known
    brief = label(run, apart)
    name = brief if run.seed is None else f"{brief} seed={run.seed}"
    # What the page's search box looks in.
    words = [run.name, name, *run.overrides, *(f"{key}={shown(value)}" for key, value in fields.items())]
    return {
        "label": name,
        "short": brief,
        "color": color_of(str(run.value("algorithm"))),
        "ended": run.ended,
        "samples": run.number("samples") or 0,
        "fields": fields,
        "search": " ".join(words).lower(),
        "problems": run.problems,
        "facts": facts,
        # Facts from this place on are the configuration, which a comparison of two runs shows the differences of.
        "configured": len(facts) - len(run.flat),
        **_activity(run),
    }


def _field(run: Run, key: str) -> Any:
    if key == "name":
        return run.name
    if key == STATUS:
        return run.status
    if key in (*CLOCKS.values(), _UNLABELLED):
        return _seconds(run) if _clock(run) == key else None
    value = run.value(key)
    if value is None and key in _FROM_ROWS:
        value = metrics.measured(run, _FROM_ROWS[key])
    return value if isinstance(value, str) or finite(value) is not None else None


def _seconds(run: Run) -> float | None:
    seconds = run.number(columns.SECONDS)
    return metrics.measured(run, "final_seconds") if seconds is None else seconds


def _curves(number: int, group: Sequence[Run], most: int) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Yield the curves of a group of runs that differ in the seed alone, thinned to what a screen can show."""
    # Numbered before thinning: the numbers say which points of different seeds are one evaluation.
    evaluations = numbered([run.rows for run in group])
    for run, own, places in zip(group, evaluations, thinned(evaluations, most), strict=True):
        curve = _columns([run.rows[place] for place in places])
        if columns.SECONDS in curve:
            curve[_clock(run)] = curve.pop(columns.SECONDS)
        prints = _fingerprints(run)
        yield (
            run,
            {
                "group": number,
                "evaluations": [own[place] for place in places],
                "curve": curve,
                "prints": [prints[place] for place in places],
                # Which rows these are, if some are left out.
                "rows": places if len(places) < len(run.rows) else None,
            },
        )


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Return the metrics as columns, with the digits that one can see."""
    keys = dict.fromkeys(key for row in (*rows[:1], *rows[-1:]) for key in row)
    made = {key: _column(key, rows) for key in keys}
    return {key: column for key, column in made.items() if any(value is not None for value in column)}


def _column(key: str, rows: Sequence[dict[str, Any]]) -> list[float | None]:
    # As `short`, without its calls: of a thousand runs there are millions of values.
    made: list[float | None] = []
    for row in rows:
        value = row.get(key)
        if type(value) is float:
            made.append(float(f"{value:.5g}") if math.isfinite(value) else None)
        else:
            made.append(value if type(value) is int else None)
    return made


def _fingerprints(run: Run) -> list[int]:
    """Return a checksum of all rows up to each: two runs part at the first row at which theirs differ."""
    measured = run.summary.get("clock") != "virtual"
    made, so_far = [], 0
    for row in run.rows:
        # Measured seconds are never the same twice, and part no runs.
        kept = [(key, row[key]) for key in sorted(row) if not (measured and key.endswith(columns.SECONDS))]
        # `repr` has all digits of a number.
        so_far = zlib.crc32(repr(kept).encode(), so_far)
        made.append(so_far)
    return made


def _activity(run: Run) -> dict[str, Any]:
    histogram = run.workers().get("staleness")
    pairs = histogram.items() if isinstance(histogram, dict) else ()
    counts = [[int(key), count] for key, count in pairs if str(key).isdigit() and finite(count) is not None]
    spans = [[s["worker"], str(s.get("what")), short(s["start"]), short(s["end"])] for s in run.timeline()]
    return {"staleness": counts, "timeline": spans}


def _facts(run: Run) -> list[list[Any]]:
    head = [["folder", run.name], ["command", provenance.commands([run])[0]]]
    summary = [[key, _text(value)] for key, value in run.summary.items() if value is not None]
    return head + summary + [[key, shown(value)] for key, value in run.flat.items()]


def _text(value: Any) -> Any:
    if isinstance(value, str) or finite(value) is not None:
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(item)}" for key, item in value.items() if item is not None)
    return shown(value)
