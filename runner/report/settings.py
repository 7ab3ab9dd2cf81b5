"""What runs have in common and what distinguishes them: their settings, except those that cannot change a result."""

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from runner.report.run import Run

# A key that is missing here keeps equal runs apart, one too many mixes unlike runs in a mean: in doubt it is left out
# of the list. `run.precision` and `run.compile` round differently, so they count.
_NO_SETTING = ("names.", "logger.", "hydra.")
_NO_SETTINGS = frozenset({
    "seed", "scale", "seeds", "experiment", "run.name", "run.resume", "run.threads", "run.device", "run.estimate",
    "run.checkpoint_every", "run.keep_checkpoints", "run.eval_every", "run.eval_batch_size", "run.diagnostics",
    "run.diagnostic_samples", "run.timing_only", "dataset.root", "dataset.download", "dataset.workers", "dataset.cache",
    "run.profile", "run.compute_processes", "dataset.url", "cluster.timeout",
})  # fmt: skip
GROUPS = ("algorithm", "model", "dataset", "cluster")


def setting(run: Run) -> dict[str, Any]:
    """Return what a run was set to do: groups' options, number of workers, and every key that can change the result.

    Left out are the seed and what only says where, how fast, or how closely watched the run was.
    """
    chosen = {group: run.value(group) for group in GROUPS if isinstance(run.value(group), str)}
    workers = {"cluster.workers": run.value("workers")}
    # A run from before these keys had no validation split and initial weights of its seed, as one with null.
    keys = {"dataset.validation": None, "model.weights": None} | {
        key: value for key, value in run.flat.items() if _matters(key)
    }
    # The summary's number of workers comes last: it replaces the null of a configuration that left it to the algorithm.
    return {**chosen, **keys, **{key: value for key, value in workers.items() if value is not None}}


@functools.cache
def _matters(key: str) -> bool:
    return key not in _NO_SETTINGS and not key.startswith(_NO_SETTING) and not key.endswith("_target_")


def by_seed(runs: Iterable[Run], apart: Sequence[str] | None = None) -> list[list[Run]]:
    """Group runs that differ in nothing but the seed, in order of first appearance.

    Args:
        runs: the runs.
        apart: the settings that keep runs apart; all by default.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        own = {key: value for key, value in setting(run).items() if apart is None or key in apart}
        # Sorted, since the order of a configuration's keys is no setting.
        groups.setdefault(json.dumps(own, sort_keys=True, default=str), []).append(run)
    return list(groups.values())


def one_per_seed(runs: Iterable[Run]) -> list[Run]:
    """Return the run that counts for each seed: an ended one before a stopped one, then the longest, then the latest.

    Returns:
        the runs by their seeds; runs whose seed is unknown count as one seed.
    """
    best: dict[int | None, Run] = {}
    for run in runs:
        # Equal ones: the later in order, which is the later in time, since folders are named by date.
        if run.seed not in best or _weight(run) >= _weight(best[run.seed]):
            best[run.seed] = run
    return [best[seed] for seed in sorted(best, key=lambda seed: -1 if seed is None else seed)]


def averaged(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that a mean over seeds is taken of: one per seed; if any have ended, only those."""
    counting = one_per_seed(runs)
    # A run that is still going would be averaged at another length than the others.
    return [run for run in counting if run.ended] or counting


def _weight(run: Run) -> tuple[bool, float]:
    return run.ended, run.number("samples") or 0.0


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the settings whose values differ among the runs that have them, in the order of the configuration."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in setting(run).items():
            # As text, which a list has too: 1, 1.0 and True are three values.
            values.setdefault(key, set()).add(repr(value))
    return [key for key, seen in values.items() if len(seen) > 1]


def shown(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    if value is None:
        return "null"
    # Before numbers: a bool is an int in Python.
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(shown(item) for item in value) + "]"
    return str(value)


def short(key: str) -> str:
    """Return a key as names have it: its last part, of a group's `kind` the group."""
    section, _, last = key.rpartition(".")
    return section if last == "kind" else last


_IN_A_NAME = 4


def label(run: Run, apart: Sequence[str]) -> str:
    """Return a short name: the method, M, and what else sets the run apart, as far as a name should go.

    Args:
        run: the run to name.
        apart: keys that set the runs shown together apart.
    """
    parts = [str(run.value("algorithm") or run.name)]
    if (workers := run.value("workers")) is not None:
        parts.append(f"M={workers}")
    own = setting(run)
    told = [key for key in apart if key in own and key not in ("algorithm", "cluster.workers", "cluster.kind")]
    # Methods' own keys first: they are what is usually compared.
    for key in sorted(told, key=lambda key: not key.startswith("algorithm."))[:_IN_A_NAME]:
        parts.append(str(own[key]) if key in GROUPS else f"{short(key)}={shown(own[key])}")
    return " ".join(parts)
