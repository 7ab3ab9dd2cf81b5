"""Mean and spread of a number over seeds."""

import statistics
from collections.abc import Mapping


class OverSeeds:
    """What has a value for each seed.

    Attributes:
        values: by seed.
    """

    values: Mapping[int, float] | Mapping[int | None, float]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None of none."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None
