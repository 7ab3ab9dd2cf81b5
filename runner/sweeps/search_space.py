"""The space of a search: values and intervals of a command line, or of each line of an experiment's cells."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig

from runner.config.errors import InputError
from runner.sweeps import experiment_sweeper
from runner.sweeps.objective import OBJECTIVES, REPORTED, SPLIT, objective

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# A name, not the class: the module of the sweeper imports this one.
SWEEPER = "runner.sweeps.optuna_sweeper.OptunaSweeper"
SAMPLERS = ("tpe", "random", "grid")
_DIGITS = 4
_LAST_SEED = 2**32 - 1  # the largest seed that NumPy takes

Point = tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """The space of one search.

    Attributes:
        fixed: overrides that all its runs have.
        choices: the values of each key that has a list of values, as typed.
        intervals: the bounds of each key that has an interval.
        seeds: the seed overrides of each run of a trial. If no seed was typed, there is one run, without an override.
        metric: the number to optimise, one of `OBJECTIVES`; `spaces` fills it in.
    """

    fixed: list[str]
    choices: dict[str, list[str]]
    intervals: dict[str, IntervalSweep]
    seeds: list[list[str]]
    metric: str = ""

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Whether a small or a large number is good."""
        return OBJECTIVES[self.metric]

    @property
    def test_error(self) -> str | None:
        """The test error to report of what was chosen by the validation split; None if it was chosen otherwise."""
        return REPORTED.get(self.metric)

    @property
    def name(self) -> str:
        """The name of the search: the method, if one is fixed."""
        return next((override for override in self.fixed if override.startswith("algorithm=")), "all runs")

    @property
    def size(self) -> float:
        """The number of points; infinite if there is an interval."""
        return math.inf if self.intervals else math.prod(map(len, self.choices.values()))

    def points(self) -> Iterator[dict[str, str]]:
        """Return every combination of the listed values."""
        return (dict(zip(self.choices, values, strict=True)) for values in itertools.product(*self.choices.values()))

    def corners(self) -> list[list[str]]:
        """Return overrides of runs that together have every listed value and both ends of every interval.

        Checking these few runs finds a mistake in any value of the space.
        """
        # A range of values is right if both of its ends are: the checks compare with bounds.
        ends = {key: [_number(i, i.start), _number(i, i.end)] for key, i in self.intervals.items()}
        values = self.choices | ends
        # As many runs as the longest list has values; shorter lists repeat their last one.
        count = max(map(len, values.values()))
        own = [[f"{key}={column[min(n, len(column) - 1)]}" for key, column in values.items()] for n in range(count)]
        return [[*self.fixed, *point, *self.seeds[0]] for point in own]

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Return the space as Optuna's distributions."""
        # Optuna is an optional package; the command reads and checks search spaces without it.
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        spaces: dict[str, BaseDistribution] = {key: CategoricalDistribution(v) for key, v in self.choices.items()}
        for key, interval in self.intervals.items():
            # As Hydra read the bounds: interval(1,8) is of whole numbers, interval(1.0,8) is not.
            kind = IntDistribution if isinstance(interval.start, int) else FloatDistribution
            spaces[key] = kind(interval.start, interval.end, log="log" in interval.tags)  # type: ignore[arg-type]
        return spaces

    def point(self, params: Mapping[str, Any]) -> Point:
        """Return a proposal of Optuna as overrides."""
        values = {k: _number(self.intervals[k], v) if k in self.intervals else v for k, v in params.items()}
        # In the order of the space, not of Optuna's answer: equal settings must be equal points.
        return tuple(f"{key}={values[key]}" for key in [*self.choices, *self.intervals])


def implied(given: Sequence[str]) -> list[str]:
    """Return the overrides that a command line with the search sweeper implies: it is a sweep even without `-m`."""
    return ["hydra.mode=MULTIRUN"] if "hydra/sweeper=optuna" in given else []


def uses_search(config: DictConfig) -> bool:
    """Return whether a composed configuration, which includes Hydra's part, has the search sweeper."""
    return str(config.hydra.sweeper.get("_target_", "")) == SWEEPER


def spaces(config: DictConfig, typed: Sequence[str]) -> list[Space]:
    """List the spaces to search.

    Args:
        config: the configuration that the command line composes to, with Hydra's part.
        typed: the overrides on the command line, without Hydra's own.

    Returns:
        A space for each line of an experiment's cells; a single space without an experiment.

    Raises:
        InputError: for wrong settings of the sweeper, and for values that cannot be searched.
    """
    sweeper = config.hydra.sweeper
    if sweeper.sampler not in SAMPLERS:
        raise InputError.of("hydra.sweeper.sampler", sweeper.sampler, "is not a sampler", ", ".join(SAMPLERS))
    if not (sweeper.n_trials is None or _is_integer(sweeper.n_trials, 1)):
        raise InputError.of(
            "hydra.sweeper.n_trials", sweeper.n_trials, "is not a number of trials", "integers from 1, null"
        )
    if not _is_integer(sweeper.seed, 0, _LAST_SEED):
        raise InputError.of("hydra.sweeper.seed", sweeper.seed, "is not a seed", f"integers from 0 to {_LAST_SEED}")
    if sweeper.get("cells"):
        found = [
            _space(line, experiment_sweeper.common(config), experiment_sweeper.seeds_of(config))
            for line in experiment_sweeper.lines(config, typed)
        ]
    else:
        found = [_space(OverridesParser.create().parse_overrides(list(typed)), [], [])]
    found = [replace(space, metric=objective(config, space.fixed)) for space in found]
    for space in found:
        if not (space.choices or space.intervals):
            allowed = "values, as algorithm.lambda0=0.5,1,2, or 'algorithm.lambda0=interval(0.1,10)'"
            raise InputError.of("hydra/sweeper", "optuna", f"{space.name} leaves nothing to search", allowed)
        if sweeper.sampler == "grid" and space.intervals:
            key = next(iter(space.intervals))
            raise InputError(
                f"{key}=interval(...): has no values for a grid; allowed: hydra.sweeper.sampler=tpe, random"
            )
        if SPLIT in {key.lstrip("+") for key in (*space.choices, *space.intervals)}:
            wrong = "cannot be searched: scores on different samples cannot be compared"
            raise InputError(f"{SPLIT}: {wrong}; allowed: one value")
        for key, interval in space.intervals.items():
            low, high = interval.start, interval.end
            assert low is not None
            assert high is not None
            if not low < high or (low <= 0 and "log" in interval.tags):
                wrong = f"{key}=interval({low:g},{high:g}): is not an interval"
                raise InputError(f"{wrong}; allowed: interval(low,high) with low < high, with tag(log,...) low above 0")
    return found


def _is_integer(value: object, first: int, last: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and first <= value <= last


def _space(line: Sequence[Override], common: list[str], seeds: list[str]) -> Space:
    fixed: list[str] = []
    choices: dict[str, list[str]] = {}
    intervals: dict[str, IntervalSweep] = {}
    for override in line:
        # As typed, with `+` before it if there was one: a proposal is typed again in the same way.
        key, value = str(override.input_line).partition("=")[0], override.value()
        if isinstance(value, IntervalSweep):
            intervals[key] = value
        # Seeds are not searched: each is a run of every trial.
        elif override.key_or_group == "seed":
            values = override.sweep_string_iterator() if override.is_sweep_override() else [str(value)]
            # Typed seeds take the place of the experiment's number of them.
            seeds = [f"seed={seed}" for seed in values]
        elif override.is_sweep_override():
            values = list(override.sweep_string_iterator())
            # A list of one value leaves nothing to choose.
            if len(values) > 1:
                choices[key] = values
            else:
                fixed.append(f"{key}={values[0]}")
        else:
            fixed.append(str(override.input_line))
    return Space([*fixed, *common], choices, intervals, [[seed] for seed in seeds] or [[]])


def _number(interval: IntervalSweep, value: Any) -> str:
    """Return a proposal rounded to a few digits and still within its bounds, so that it can be typed again."""
    if isinstance(value, int):
        return str(value)
    assert interval.start is not None
    assert interval.end is not None
    # Clipped after rounding, which may step over a bound.
    return repr(min(max(float(f"{value:.{_DIGITS}g}"), float(interval.start)), float(interval.end)))
