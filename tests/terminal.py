"""A terminal in memory, and an evaluation to show on it."""

import io

from rich.console import Console

ROW = {
    "epoch": 1.0,
    "samples": 1000,
    "updates": 32,
    "seconds": 12.25,
    "train_loss": 1.5,
    "train_error": 40.0,
    "test_loss": 1.25,
    "test_error": 33.333,
    "lr": 0.1,
    "staleness_mean": 6.96,
    "staleness_max": 9,
}


def console(width: int = 200, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)


def written(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()
