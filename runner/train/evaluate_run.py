"""What given weights are worth on all splits: `run.evaluate_only=true`. Nothing is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from algorithms.base import Message
from runner.config.errors import shown
from runner.loop.evaluation_row import score_columns
from runner.run_folder import checkpoint, columns
from runner.run_folder.contents import read_metrics
from runner.train.components import RunComponents


def show(components: RunComponents) -> int:
    """Print every column that an evaluation can have, of a run folder its last recorded row beside.

    Returns:
        The exit code, 0.
    """
    place = Path(str(components.cfg.model.weights)).expanduser()
    recorded = read_metrics(place)[-1] if place.is_dir() and read_metrics(place) else {}
    table = Table()
    table.add_column("column", style="bold")
    table.add_column("now", justify="right")
    if recorded:
        table.add_column("recorded", justify="right")
    for name, value in evaluated(components, _states(place)).items():
        beside = [_text(recorded.get(name))] if recorded else []
        table.add_row(name, _text(value), *beside)
    console = Console()
    console.print(table)
    if recorded:
        # Else the two columns of training would seem to contradict each other.
        told = (
            "recorded: training loss and error are means over the steps since the evaluation before, at moving weights"
        )
        console.print(told, soft_wrap=True, highlight=False)
    return 0


def evaluated(components: RunComponents, states: Sequence[Message] | None) -> dict[str, Any]:
    """Return the columns of an evaluation of the initial weights; those of training are of the whole training set.

    Args:
        components: what the run is made of; its network has the weights that are evaluated.
        states: of the method where the weights were reached; None, for no dual variables, if they are not known.
    """
    replica = components.oracle.replica
    # Copies: an evaluation leaves the replica as it was in the last batch.
    weights, statistics = replica.weights.clone(), replica.initial_statistics()
    row: dict[str, Any] = {}
    for evaluate, names in (
        (components.evaluator_of(components.dataset.train), columns.TRAIN_SCORE),
        (components.evaluator(), columns.TEST_SCORE),
        (components.validator(), columns.VALIDATION_SCORE),
    ):
        row |= score_columns(None if evaluate is None else evaluate(weights, statistics), names)
    return row | components.measure_at(weights, states)


def _states(place: Path) -> list[Message] | None:
    """Return the states of the method in the last checkpoint of a run folder; None without one."""
    found = checkpoint.newest_intact(place) if place.is_dir() else None
    if found is None:
        return None
    executor = found[0]["executor"]
    return list(executor["methods"]) if "methods" in executor else [executor["method"]]


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else shown(value)
