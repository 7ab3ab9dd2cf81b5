"""The learning rate over a run, as a picture and as a small table: `run.plot_schedule=<file>`."""

from __future__ import annotations

import itertools
from pathlib import Path

from hydra.utils import get_class
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from runner.config.errors import InputError
from runner.config.paths import expanded
from runner.loop.schedule import Schedule
from runner.train.build import schedule_of
from runner.train.workers import update_samples, workers_of

POINTS = 1000
"""How many points the curve has, at least."""


def show(cfg: DictConfig) -> int:
    """Draw the schedule of the run that `cfg` describes to the file it names, print it, and train nothing.

    Returns:
        The exit code, 0.

    Raises:
        InputError: the file cannot be written.
    """
    # The class tells the number of workers and whether they step together; neither data nor a network are built.
    algorithm = get_class(cfg.algorithm._target_)
    workers = workers_of(cfg, algorithm)
    schedule = schedule_of(cfg, workers, update_samples(cfg, algorithm, workers))
    path = expanded(cfg.run.plot_schedule, "run.plot_schedule")
    title = f"schedule={cfg.names.schedule}  schedule.lr={cfg.schedule.lr:g}  workers {workers}"
    try:
        _draw(schedule, path, title)
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
        raise InputError.of("run.plot_schedule", path, why, "a file in a folder you may write to") from error
    table = Table()
    table.add_column("epoch", justify="right")
    table.add_column("learning rate", justify="right")
    corners = schedule.corners()
    # Tenths of the run and all corners: a jump between two tenths would otherwise not be seen.
    tenths = {round(corners[-1] * k / 10, 6) for k in range(11)}
    for epoch in sorted(tenths | set(corners)):
        table.add_row(f"{epoch:g}", f"{schedule.at(epoch).lr:.4g}")
    console = Console()
    console.print(title, highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"drawn to {path}", highlight=False, soft_wrap=True)
    return 0


def curve(schedule: Schedule) -> tuple[list[float], list[float]]:
    """Return effective passes and rates of a line that keeps corners and jumps."""
    corners = schedule.corners()
    whole = corners[-1] - corners[0]
    epochs: list[float] = []
    for low, high in itertools.pairwise(corners):
        # Points in proportion to its length, but at least two for a short piece, whose slope would else be lost.
        steps = max(2, round(POINTS * (high - low) / whole))
        epochs += [low + (high - low) * i / steps for i in range(steps)]
        # Just before a corner, where a jump still has its old rate.
        epochs.append(high - 1e-9 * whole)
    epochs.append(corners[-1])
    return epochs, [schedule.at(epoch).lr for epoch in epochs]


def _draw(schedule: Schedule, path: Path, title: str) -> None:
    # Imported here: it takes half a second, and nothing else needs it. Without pyplot no display is looked for.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*curve(schedule))
    axes.set_xlabel("effective passes")
    axes.set_ylabel("learning rate")
    axes.set_title(title, fontsize="medium")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
