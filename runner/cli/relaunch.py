"""A run that its launcher starts again, as `torchrun --max-restarts` does, goes on in the folder that it has.

Rank 0 writes the name of the launch into each folder that it makes, and looks for that name when it starts. So nothing
has to be remembered outside of the run folders, and only rank 0's machine has to see them.
"""

from pathlib import Path

from runner.config import launcher
from runner.run_folder.contents import CONFIG, checkpoint_files, read_metrics

LAUNCH = ".hydra/launch"
"""File of a run folder with the name of the launch that made it."""


def remember(folder: Path) -> None:
    """Note in a new run folder which launch made it."""
    name = launcher.launch()
    if name is not None:
        (folder / LAUNCH).write_text(name, encoding="utf-8")


def earlier_folder(planned: Path) -> Path | None:
    """Return the folder that this launch made when it started the run before; None if it did not.

    Args:
        planned: the folder that the run would get now. The earlier one is that, or beside it: names have the time in
            them, and maybe the date one level up.
    """
    name = launcher.launch()
    if name is None:
        return None
    found = [planned / LAUNCH, *planned.parent.glob(f"*/{LAUNCH}"), *planned.parent.parent.glob(f"*/*/{LAUNCH}")]
    folders = [path.parent.parent for path in found if path.is_file() and path.read_text(encoding="utf-8") == name]
    return next((folder for folder in folders if (folder / CONFIG).is_file()), None)


def progress(folder: Path) -> str:
    """Return how far the run had come, and from where it goes on."""
    rows, saved = read_metrics(folder), checkpoint_files(folder)
    came = f"had come to epoch {rows[-1]['epoch']:g}" if rows else "had not come to its first evaluation"
    way = f"goes on from the checkpoint of update {saved[0][0]}" if saved else "begins anew, as it had no checkpoint"
    return f"started again by its launcher: the run {came}, and {way} ({folder})"
