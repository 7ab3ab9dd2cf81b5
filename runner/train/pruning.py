"""Whether a search stops a run early: what Optuna's pruners decide, by the run's scores on the validation split.

A decision depends on the runs that had ended when the search proposed this one, and on this run's own scores, never on
runs that go on beside it: how far those are differs from time to time. The search writes what it knows into a file, and
the run, which is a process of its own, maybe one that goes on after a stop, gives the same answers from it each time.

Optuna is an optional package, and imported where it is used. Nothing here needs torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.run_folder import columns

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

VARIABLE = "DCRUN_PRUNING"
"""Environment variable with the file that tells a run of a search how it may be pruned."""
PRUNERS = ("median", "percentile", "successive_halving", "hyperband")
BEST_QUARTER = 25.0
"""The percentile that goes on unless `hydra.sweeper.pruner_options` says another."""


def make_pruner(name: str, options: Mapping[str, Any], steps: int) -> BasePruner:
    """Return one of Optuna's pruners.

    Args:
        name: one of `PRUNERS`.
        options: keyword arguments of Optuna's class.
        steps: evaluations of a whole run.

    Raises:
        TypeError, ValueError: Optuna does not take the options.
    """
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(**options)
    if name == "percentile":
        return pruners.PercentilePruner(**{"percentile": BEST_QUARTER, **options})
    if name == "successive_halving":
        # Said, not "auto": that would follow from whichever run ends first.
        return pruners.SuccessiveHalvingPruner(**{"min_resource": 1, **options})
    return pruners.HyperbandPruner(**{"max_resource": max(steps, 1), **options})


@dataclass(frozen=True)
class Trial:
    """A trial of a search as far as a pruner asks for it.

    Attributes:
        state: Optuna's name of it, as `COMPLETE`.
        value: of a complete trial.
        reported: the scores by step, as pairs.
        kept: what the pruner itself has noted.
    """

    state: str
    value: float | None = None
    reported: list[tuple[int, float]] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PruningFile:
    """What a run needs to know to be pruned.

    Attributes:
        study: name of the search, from which Hyperband derives a trial's bracket.
        pruner: one of `PRUNERS`.
        options: keyword arguments of Optuna's class.
        column: the column of the metrics that is compared; less is better.
        eval_every: effective passes of a step.
        steps: evaluations of a whole run.
        trials: those before this one, in the order of their numbers.
    """

    study: str
    pruner: str
    options: dict[str, Any]
    column: str
    eval_every: float
    steps: int
    trials: list[Trial]

    def write(self, path: Path) -> None:
        """Write the file, with the folders that it needs."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> PruningFile:
        """Return what `write` wrote."""
        found = json.loads(path.read_text(encoding="utf-8"))
        trials = [
            Trial(**{**one, "reported": [(int(step), value) for step, value in one["reported"]]})
            for one in found.pop("trials")
        ]
        return cls(**found, trials=trials)


class Judge:
    """Tells of the evaluations of one run, in their order, whether the run is to be stopped.

    Args:
        known: what the search knew when it proposed the run.
    """

    def __init__(self, known: PruningFile) -> None:
        import optuna

        # It says that it has made a study, in the middle of the run's own lines.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.known = known
        # A study of this run's own: of what goes on in others at the same time it sees nothing. Its name and the number
        # of the trial are those of the search, as Hyperband goes by them.
        self._study = optuna.create_study(
            study_name=known.study,
            direction="minimize",
            pruner=make_pruner(known.pruner, known.options, known.steps),
        )
        self._study.add_trials([_frozen(trial) for trial in known.trials])
        self._trial = self._study.ask()
        self._seen = 0
        self.pruned = False

    def prunes(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether the run is to be stopped after the last of its rows; those that are known are not read again.

        Args:
            rows: all rows of its metrics so far.
        """
        for row in rows[self._seen :]:
            value, step = row.get(self.known.column), self._step(row)
            # A row may repeat the step of the one before, as the last of a run that is no whole number of steps long.
            if value is None or not math.isfinite(value) or step in self._reported:
                continue
            self._trial.report(value, step)
            self.pruned = self.pruned or self._trial.should_prune()
        self._seen = len(rows)
        return self.pruned

    def trial(self, state: str, value: float | None = None) -> Trial:
        """Return the trial as it ended, for the trials after it."""
        own = self._study.trials[-1]
        return Trial(state, value, sorted(own.intermediate_values.items()), dict(own.system_attrs))

    @property
    def _reported(self) -> Mapping[int, float]:
        return self._study.trials[-1].intermediate_values

    def _step(self, row: Mapping[str, Any]) -> int:
        # The tolerance: effective passes are quotients, and a whole one may come out a rounding below.
        return max(1, math.floor(row[columns.EPOCH] / self.known.eval_every + 1e-9))


def judge_of_this_run() -> Judge | None:
    """Return what judges the run of this process; None unless a search with a pruner started it."""
    place = os.environ.get(VARIABLE)
    return None if place is None else Judge(PruningFile.read(Path(place)))


def _frozen(trial: Trial) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    state = TrialState[trial.state]
    return create_trial(
        state=state,
        value=trial.value if state is TrialState.COMPLETE else None,
        intermediate_values=dict(trial.reported),
        system_attrs=dict(trial.kept),
    )
