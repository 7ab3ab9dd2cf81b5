"""Virtual time of a simulated cluster: how long a gradient, a message and an all-reduce take.

Computing times follow one of four models (`cluster.compute.distribution`), `seconds` being the mean over one full
batch:

- ``constant``: always ``seconds``.
- ``uniform``: uniform on ``seconds * (1 ± jitter)``.
- ``lognormal``: ``seconds * exp(sigma z - sigma²/2)`` with ``z`` normal, so that the mean is ``seconds`` for every
  ``sigma``.
- ``gamma``: the coefficient-of-variation method of Ali et al. 2000 ("Representing task and machine heterogeneities for
  heterogeneous computing systems", machines drawn first): a worker's own mean q is drawn once from a gamma distribution
  with mean ``seconds`` and coefficient of variation ``cv_machine``, each of its tasks from one with mean q and
  ``cv_task``.

Every draw is a function of (seed, worker, task) alone, so neither the order of events nor a restart changes any.
"""

import math
from collections.abc import Sequence

import numpy as np

from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.config.seeds import derive

# Streams of draws: which numbers a stragglers' setting uses must not change the computing times.
MACHINE, TASK, STRAGGLER = range(3)


class Clock:
    """Draws computing times and computes transfer times, all in virtual seconds.

    Args:
        compute: The computing model; ``speeds`` are relative, one per worker: 2 is twice as fast. ``seconds`` null is
            for real workers, which take the time they take (see `sleep_seconds`).
        stragglers: With ``probability`` a task of one of ``workers`` (null: of any) that takes t takes u·t longer, u
            uniform in the range ``extra``.
        network: ``latency`` seconds and ``bandwidth`` bytes per second (null: infinite) of every link, the
            all-reduce, and the ``server_seconds`` for which a message occupies the server, which handles one at a
            time.
        workers: Number of workers.
        seed: Seed of all draws.

    Attributes:
        server_seconds: As in ``network``.
        measured: Whether computing takes the time it really takes.

    Raises:
        ValueError: A value is out of its range; the message names the key, the value and what is allowed.
    """

    server_seconds: float

    def __init__(
        self, compute: ComputeConfig, stragglers: StragglersConfig, network: NetworkConfig, *, workers: int, seed: int
    ) -> None:
        self.workers = _whole("cluster.workers", workers, "at least 1", low=1)
        self._read_compute(compute)
        self._read_stragglers(stragglers)
        self._read_network(network)
        # One generator, set to the draw's own position each time: building one per draw costs six times as much.
        self._bits = np.random.Philox(key=derive(seed, "clock"))
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state
        self._means = [self._machine_mean(worker) for worker in range(workers)]

    def _read_compute(self, compute: ComputeConfig) -> None:
        self._distribution = compute.distribution
        _one_of("cluster.compute.distribution", compute.distribution, ("constant", "uniform", "lognormal", "gamma"))
        self.measured = compute.seconds is None
        seconds = 1.0 if compute.seconds is None else compute.seconds
        self._seconds = _number("cluster.compute.seconds", seconds, "above 0", low=0.0, open_low=True)
        self._jitter = _number("cluster.compute.jitter", compute.jitter, "a share from 0 to 1", low=0.0, high=1.0)
        self._sigma = _number("cluster.compute.sigma", compute.sigma, "at least 0", low=0.0)
        self._cv_task = _number("cluster.compute.cv_task", compute.cv_task, "at least 0", low=0.0)
        self._cv_machine = _number("cluster.compute.cv_machine", compute.cv_machine, "at least 0", low=0.0)
        speeds = [1.0] * self.workers
        if compute.speeds is not None:
            allowed = f"a list of {self.workers} numbers above 0, one per worker, or null"
            given = _sequence("cluster.compute.speeds", compute.speeds, allowed)
            if len(given) != self.workers:
                raise ValueError(f"cluster.compute.speeds={given}: {len(given)} speeds; allowed: {allowed}")
            speeds = [_number("cluster.compute.speeds", speed, allowed, low=0.0, open_low=True) for speed in given]
        self._speeds = speeds

    def _read_stragglers(self, stragglers: StragglersConfig) -> None:
        self._probability = _number(
            "cluster.stragglers.probability", stragglers.probability, "from 0 to 1", low=0.0, high=1.0
        )
        allowed = "two numbers [from, to], 0 <= from <= to"
        extra = _sequence("cluster.stragglers.extra", stragglers.extra, allowed)
        if len(extra) != 2:
            raise ValueError(f"cluster.stragglers.extra={extra}: {len(extra)} numbers; allowed: {allowed}")
        low, high = (_number("cluster.stragglers.extra", value, allowed, low=0.0) for value in extra)
        if low > high:
            raise ValueError(f"cluster.stragglers.extra={extra}: the range is empty; allowed: {allowed}")
        self._extra = (low, high)
        self._prone = frozenset(range(self.workers))
        if stragglers.workers is not None:
            allowed = f"a list of workers from 0 to {self.workers - 1}, or null for all"
            prone = _sequence("cluster.stragglers.workers", stragglers.workers, allowed)
            self._prone = frozenset(
                _whole("cluster.stragglers.workers", worker, allowed, low=0, high=self.workers - 1) for worker in prone
            )

    def _read_network(self, network: NetworkConfig) -> None:
        self._latency = _number("cluster.network.latency", network.latency, "seconds, at least 0", low=0.0)
        self._bandwidth = math.inf
        if network.bandwidth is not None:
            allowed = "bytes per second, above 0, or null for infinite"
            self._bandwidth = _number("cluster.network.bandwidth", network.bandwidth, allowed, low=0.0, open_low=True)
        self._allreduce = network.allreduce
        _one_of("cluster.network.allreduce", network.allreduce, ("ring", "linear"))
        self.server_seconds = _number(
            "cluster.network.server_seconds", network.server_seconds, "seconds, at least 0", low=0.0
        )

    def compute_seconds(self, worker: int, task: int, share: float = 1.0, gradients: float = 1.0) -> float:
        """How long a worker computes on one of its tasks, a straggler's extra delay included.

        Args:
            worker: From 0 to workers - 1.
            task: How many-th task of this worker; the same task takes the same time whenever it is asked for.
            share: Samples of the task's batch as a share of a full batch.
            gradients: Gradient evaluations per sample.
        """
        seconds = self._task_seconds(worker, task) * share * gradients / self._speeds[worker]
        return seconds + self._lateness(worker, task) * seconds

    def sleep_seconds(self, worker: int, task: int, took: float, share: float = 1.0, gradients: float = 1.0) -> float:
        """How much longer a real worker has to take for a task, to be as slow as this clock says.

        With `cluster.compute.seconds` as many as `compute_seconds` has, if it did not take longer anyway. Without, it
        takes its own time, multiplied by how much slower it is than the fastest by `speeds`, and a straggler's delay.

        Args:
            worker: From 0 to workers - 1.
            task: How many-th task of this worker.
            took: Seconds that it really took.
            share: Samples of the task's batch as a share of a full batch.
            gradients: Gradient evaluations per sample.
        """
        if self.measured:
            slower = max(self._speeds) / self._speeds[worker]
            return took * slower * (1.0 + self._lateness(worker, task)) - took
        return max(0.0, self.compute_seconds(worker, task, share, gradients) - took)

    def _lateness(self, worker: int, task: int) -> float:
        """u where the task is a straggler's: it takes u times as long in addition."""
        if self._probability and worker in self._prone:
            generator = self._at(STRAGGLER, worker, task)
            if generator.random() < self._probability:
                return generator.uniform(*self._extra)
        return 0.0

    def transfer_seconds(self, nbytes: int) -> float:
        """How long one message of ``nbytes`` travels: latency + bytes / bandwidth."""
        return self._latency + nbytes / self._bandwidth

    def allreduce_seconds(self, nbytes: int, workers: int) -> float:
        """How long ``workers`` need for the sum of a vector of ``nbytes`` that each of them holds; 0 for a single one.

        ``ring``: 2(M-1) steps, each with one latency and 1/M of the bytes. ``linear``: one latency and M times the
        bytes (DaSGD, section 3.3: t_c = m n_p / BW).
        """
        if workers == 1:
            return 0.0
        if self._allreduce == "ring":
            steps = 2 * (workers - 1)
            return steps * self._latency + steps / workers * nbytes / self._bandwidth
        return self._latency + workers * nbytes / self._bandwidth

    def allgather_seconds(self, nbytes: int, workers: int) -> float:
        """How long ``workers`` need until each has the vectors of ``nbytes`` of all; 0 for a single one.

        ``ring``: M-1 steps, each with one latency and all the bytes of one worker. ``linear``: as an all-reduce.
        """
        if workers == 1:
            return 0.0
        if self._allreduce == "ring":
            return (workers - 1) * (self._latency + nbytes / self._bandwidth)
        return self._latency + workers * nbytes / self._bandwidth

    def combining_seconds(self, combine: str, nbytes: int, workers: int) -> float:
        """How long a combination of ``nbytes`` from each worker takes: "mean" an all-reduce, "gather" an all-gather."""
        return (self.allgather_seconds if combine == "gather" else self.allreduce_seconds)(nbytes, workers)

    def _task_seconds(self, worker: int, task: int) -> float:
        if self._distribution == "uniform":
            return self._seconds * (1.0 + self._jitter * self._at(TASK, worker, task).uniform(-1.0, 1.0))
        if self._distribution == "lognormal":
            normal = self._at(TASK, worker, task).standard_normal()
            return self._seconds * math.exp(self._sigma * normal - 0.5 * self._sigma**2)
        if self._distribution == "gamma":
            return _gamma(self._at(TASK, worker, task), self._means[worker], self._cv_task)
        return self._seconds

    def _machine_mean(self, worker: int) -> float:
        if self._distribution != "gamma":
            return self._seconds
        return _gamma(self._at(MACHINE, worker, 0), self._seconds, self._cv_machine)

    def _at(self, stream: int, worker: int, task: int) -> np.random.Generator:
        """The generator at the start of the draw's own stretch of 2^64 blocks of the counter-based Philox."""
        counter = self._state["state"]["counter"]
        counter[0], counter[1], counter[2], counter[3] = 0, stream, worker, task
        self._bits.state = self._state
        return self._generator


def _gamma(generator: np.random.Generator, mean: float, variation: float) -> float:
    if variation == 0.0:
        return mean
    shape = 1.0 / variation**2
    return float(mean / shape * generator.standard_gamma(shape))


def _number(
    key: str, value: object, allowed: str, *, low: float, high: float = math.inf, open_low: bool = False
) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key}={value}: not a number; allowed: {allowed}")
    inside = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
    if not inside:
        raise ValueError(f"{key}={value}: out of range; allowed: {allowed}")
    return float(value)


def _whole(key: str, value: object, allowed: str, *, low: int, high: float = math.inf) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key}={value}: not a whole number; allowed: {allowed}")
    if not low <= value <= high:
        raise ValueError(f"{key}={value}: out of range; allowed: {allowed}")
    return value


def _sequence(key: str, value: object, allowed: str) -> list:
    # A Hydra list is a Sequence only by duck typing.
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        raise ValueError(f"{key}={value}: not a list; allowed: {allowed}")
    return list(value)  # type: ignore[call-overload]


def _one_of(key: str, value: object, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"{key}={value}: unknown; allowed: {', '.join(options)}")
