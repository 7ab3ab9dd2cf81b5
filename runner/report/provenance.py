"""What ran, in words: data, seeds, length, machine, commit, and the commands to repeat it."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

from runner.config.errors import InputError
from runner.report import metrics
from runner.report.evidence import Block
from runner.report.run import Run
from runner.report.settings import by_seed, shown


def heading(block: Block) -> str:
    """Return scale, seeds and length of a block in one line."""
    scale = f"{block.scale} scale" if block.scale else "own setting"
    # A paper that names no length has none that "paper scale" could mean.
    if block.scale == "paper" and block.exhibit.our_length:
        scale += ", our length"
    seeds = ", ".join(map(str, block.seeds)) or "unknown"
    epochs = _range(metrics.measured(run, "final_epoch") for run in block.runs)
    many = "seeds" if len(block.seeds) > 1 else "seed"
    return f"{scale[0].upper()}{scale[1:]}: {epochs} effective passes, {many} {seeds}"


def facts(runs: Sequence[Run]) -> list[str]:
    """Return what ran on what: a line each for data, machine, clock and code."""
    lines = [f"data: {_some(_data(run) for run in runs)}"]
    lines.append(f"seconds: {_some(_clock(run) for run in runs)}")
    lines.append(f"machine: {_some(_machine(run) for run in runs)}")
    lines.append(f"commit: {_some(_commit(run) for run in runs)}")
    versions = (run.summary.get("versions") for run in runs)
    lines.append(f"torch: {_some(str((v if isinstance(v, dict) else {}).get('torch', 'unknown')) for v in versions)}")
    walls = [wall for run in runs if (wall := run.number("wall_seconds")) is not None]
    if walls:
        lines.append(f"time: {len(walls)} runs, {sum(walls) / 3600:.2f} hours together")
    return lines


def commands(runs: Sequence[Run]) -> list[str]:
    """Return command lines that repeat runs, one for runs that differ in the seed alone; quoted for a POSIX shell."""
    lines = []
    for group in by_seed(runs):
        # What belonged to one start of one run, not to its setting.
        own = [o for o in group[0].overrides if not o.startswith(("seed=", "hydra.", "run.resume=", "logger.group="))]
        seeds = [str(seed) for seed in sorted({run.seed for run in group if run.seed is not None})]
        if any(o.startswith("experiment=") for o in own):
            # Alone it would sweep over all its cells, each with these settings forced upon it.
            one = shlex.join(["dcrun", *own, "run.resume=null", "hydra.mode=RUN"])
            # A shell loop, since Hydra lets `-m` win over `hydra.mode=RUN`, and the
            # experiment would sweep over its cells again.
            several = f"for seed in {' '.join(seeds)}; do {one} seed=$seed; done"
            lines.append(several if len(seeds) > 1 else " ".join([one, *(f"seed={seed}" for seed in seeds)]))
        else:
            multirun = ["-m"] if len(seeds) > 1 else []
            given = [f"seed={','.join(seeds)}"] if seeds else []
            # Quoted as a shell wants it: an override may hold brackets, commas and blanks.
            lines.append(shlex.join(["dcrun", *multirun, *own, *given]))
    return list(dict.fromkeys(lines))


def uncommitted(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that no commit can repeat: theirs is unknown, or the code differed from it.

    A run whose summary cannot be read measures nothing, and is not among them.
    """
    return [run for run in runs if run.status != "broken" and _commit(run).endswith(("unknown", "-dirty"))]


def check_committed(runs: Sequence[Run]) -> None:
    """Refuse runs that no commit can repeat.

    Raises:
        InputError: naming the runs, by the archive or the folder that holds them.
    """
    places: dict[Path, list[str]] = {}
    for run in uncommitted(runs):
        places.setdefault(run.folder, []).append(run.name)
    if places:
        # A few of each: it stays one line that a terminal can show.
        held = _some((f"{place}: {_some(names, 3, ', ')}" for place, names in places.items()), 3)
        raise InputError(
            f"--results: {held}: the commit is unknown or dirty, so that nobody can repeat this; allowed: runs of a "
            "clean checkout (run it again there, or drop it: dcreport FILE --archive FILE --overwrite --committed)"
        )


def _data(run: Run) -> str:
    parts = [str(run.value("dataset") or "unknown")]
    if isinstance(root := run.value("dataset.root"), str):
        parts.append(f"from {PurePath(root).name}")
    if (limit := run.value("dataset.limit_train")) is not None:
        parts.append(f"{shown(limit)} training samples")
    if (limit := run.value("dataset.limit_test")) is not None:
        parts.append(f"{shown(limit)} test samples")
    if (validation := run.value("dataset.validation")) is not None:
        parts.append(f"{shown(validation)} of the training samples for validation")
    if isinstance(augment := run.value("dataset.augment"), bool):
        parts.append("padding-crop and flip" if augment else "no augmentation")
    return ", ".join(parts)


def _clock(run: Run) -> str:
    clock = run.summary.get("clock")
    if clock == "virtual":
        return "virtual, of a simulated cluster"
    return "measured, on processes" if clock == "measured" else "unknown"


def _commit(run: Run) -> str:
    # A commit may be followed by "-dirty", which must survive the shortening.
    commit, dash, state = str(run.summary.get("git_commit") or "unknown").partition("-")
    return f"{commit[:12]}{dash}{state}"


def _machine(run: Run) -> str:
    summary = run.summary
    device = str(summary.get("device_name") or summary.get("device") or "unknown")
    cores = f", {summary['cores']} cores" if summary.get("cores") is not None else ""
    threads = f", {summary['threads']} threads" if summary.get("threads") is not None else ""
    precision = run.value("run.precision")
    return f"{device}{cores}{threads}{f', {precision}' if precision else ''}"


def _some(values: Iterable[str], most: int = 4, between: str = "; ") -> str:
    # In order of appearance: a set's order changes from run to run, and with it the committed pages.
    distinct = list(dict.fromkeys(values))
    return between.join(distinct[:most]) + (f"{between}and {len(distinct) - most} more" if len(distinct) > most else "")


def _range(values: Iterable[Any]) -> str:
    # Epochs end at whole batches: 100.002 passes are the 100 that were asked for.
    known = sorted({round(value, 1) for value in values if value is not None})
    if not known:
        return "unknown"
    return f"{known[0]:g}" if len(known) == 1 else f"{known[0]:g} to {known[-1]:g}"
