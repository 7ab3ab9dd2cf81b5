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

Instead of a model a file may hold them (`cluster.compute.delays`; see `runner.config.delays`): then a worker's task k
takes the seconds of row k. What is said of a task's share below holds for both: a smaller batch takes less, several
gradients take several times as long.

Every draw is a function of (seed, worker, task) alone, so neither the order of events nor a restart changes any. Those
of ``uniform`` and of stragglers are computed in blocks, which have the bits of single ones (`runner.loop.philox`).
"""

import logging
import math
from typing import Any, cast

import numpy as np
from omegaconf import DictConfig, OmegaConf

from runner.config import delays
from runner.config.schema import ComputeConfig, NetworkConfig, StragglersConfig
from runner.config.seeds import derive
from runner.config.validation import check_times, check_workers
from runner.loop.philox import BlockDraws, Floats, Ints

log = logging.getLogger("dcrun")

# Streams of draws: which numbers a stragglers' setting uses must not change the computing times.
MACHINE, TASK, STRAGGLER = range(3)


class Clock:
    """Draw computing times and compute transfer times, all in virtual seconds.

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
        InputError: A value is out of its range; the message names the key, the value and what is allowed.
    """

    server_seconds: float

    def __init__(
        self, compute: ComputeConfig, stragglers: StragglersConfig, network: NetworkConfig, *, workers: int, seed: int
    ) -> None:
        self._compute, self._stragglers, self._network = _plain(compute), _plain(stragglers), _plain(network)
        check_workers(workers)
        check_times(self._compute, self._stragglers, self._network, workers)
        self.workers = workers
        self.measured = self._compute["seconds"] is None
        # Any number: where computing is measured it only cancels out.
        self._seconds = 1.0 if self.measured else self._compute["seconds"]
        self._speeds = self._compute["speeds"] or [1.0] * workers
        place = self._compute["delays"]
        self._delays = None if place is None else delays.read(place, workers).columns
        self._repeats = False
        prone = self._stragglers["workers"]
        self._prone = frozenset(range(workers) if prone is None else prone)
        self._speed_vector = np.array(self._speeds)
        self._prone_vector = np.array([worker in self._prone for worker in range(workers)], dtype=float)
        bandwidth = self._network["bandwidth"]
        self._bandwidth = math.inf if bandwidth is None else bandwidth
        self.server_seconds = self._network["server_seconds"]
        # One generator, set to the draw's own position each time: building one per draw costs six times as much.
        self._bits = np.random.Philox(key=derive(seed, "clock"))
        self._generator = np.random.Generator(self._bits)
        state = cast(dict[str, Any], self._bits.state)
        key = state["state"]["key"]
        # A dictionary that is written to and set again for each draw: asking the generator for a new one is slow. Of
        # tuples, since the generator takes their numbers in a third of the time that arrays' take.
        self._state: Any = {**state, "state": {"key": tuple(key.tolist())}, "buffer": tuple(state["buffer"].tolist())}
        self._uniform = BlockDraws(key, TASK, workers, self._uniform_seconds)
        self._late = BlockDraws(key, STRAGGLER, workers, self._late_factors)
        drawn_in_blocks = self._delays is None and self._compute["distribution"] == "uniform"
        # Looked up once: a simulation asks for every gradient.
        self._draw = self._uniform.at if drawn_in_blocks else self._task_seconds
        # By worker, the task that `tasks_seconds` was asked for last, and its draw.
        self._last_draws = np.full(workers, -1), np.zeros(workers)
        # Last, as a gamma draw needs the generator.
        self._means = [self._machine_mean(worker) for worker in range(workers)]

    def compute_seconds(self, worker: int, task: int, load: float = 1.0, gradients: float = 1.0) -> float:
        """Return how long a worker computes on one of its tasks, a straggler's extra delay included.

        Args:
            worker: From 0 to workers - 1.
            task: Number of the task among this worker's; it takes the same time whenever it is asked for.
            load: Samples of the task's batch relative to a full batch.
            gradients: Gradient evaluations per sample.
        """
        seconds = self._draw(worker, task) * load * gradients / self._speeds[worker]
        # A slow worker's straggling is longer in the same measure.
        return seconds + self._lateness(worker, task) * seconds

    def tasks_seconds(self, workers: Ints, tasks: Ints, loads: Floats, gradients: Floats) -> Floats:
        """Return `compute_seconds` of a task of each of some workers, to the bit; all arguments are vectors (n,)."""
        if self._draw == self._uniform.at:
            own = self._uniform.many_at(workers, tasks)
        else:
            own = self._drawn_at(workers, tasks)
        # The operations of `compute_seconds`, in its order.
        seconds = own * loads * gradients / self._speed_vector[workers]
        if not self._stragglers["probability"]:
            return seconds
        return seconds + self._late.many_at(workers, tasks) * self._prone_vector[workers] * seconds

    def step_seconds(self, task: int, loads: Floats, gradients: float = 1.0) -> Floats:
        """Return `compute_seconds` of the same task of every worker (M,), to the bit.

        Args:
            task: Number of the task among each worker's.
            loads: Samples of each worker's batch relative to a full one, (M,).
            gradients: Gradient evaluations per sample.
        """
        if self._draw == self._uniform.at:
            own = self._uniform.all_at(task)
        else:
            own = np.array([self._task_seconds(worker, task) for worker in range(self.workers)])
        # The operations of `compute_seconds`, in its order.
        seconds = own * loads * gradients / self._speed_vector
        if not self._stragglers["probability"]:
            return seconds
        return seconds + self._late.all_at(task) * self._prone_vector * seconds

    def sleep_seconds(self, worker: int, task: int, took: float, load: float = 1.0, gradients: float = 1.0) -> float:
        """Return how much longer a real worker has to take for a task, to be as slow as this clock says.

        With `cluster.compute.seconds` as many as `compute_seconds` has, if it did not take longer anyway. Without, it
        takes its own time, multiplied by how much slower it is than the fastest by `speeds`, and a straggler's delay.

        Args:
            worker: From 0 to workers - 1.
            task: Number of the task among this worker's.
            took: Seconds that it really took.
            load: Samples of the task's batch relative to a full batch.
            gradients: Gradient evaluations per sample.
        """
        # Lateness is a factor of the own time, and the same draw as in a simulation: the same task of the same worker
        # is late.
        if self.measured:
            slower = max(self._speeds) / self._speeds[worker]
            return took * slower * (1.0 + self._lateness(worker, task)) - took
        return max(0.0, self.compute_seconds(worker, task, load, gradients) - took)

    def _lateness(self, worker: int, task: int) -> float:
        """Return u if the task is a straggler's, which takes u times as long in addition; else 0."""
        # No draw where nobody is late: drawing costs time for each task.
        return self._late.at(worker, task) if self._stragglers["probability"] and worker in self._prone else 0.0

    def transfer_seconds(self, nbytes: int) -> float:
        """Return how long one message of ``nbytes`` travels: latency + bytes / bandwidth."""
        return self._network["latency"] + nbytes / self._bandwidth

    def allreduce_seconds(self, nbytes: int, workers: int) -> float:
        """Return how long ``workers`` need to sum a vector of ``nbytes`` that each of them holds; 0 for a single one.

        ``ring``: 2(M-1) steps, each with one latency and 1/M of the bytes. ``linear``: one latency and M times the
        bytes (DaSGD, section 3.3: t_c = m n_p / BW).
        """
        if workers == 1:
            return 0.0
        if self._network["allreduce"] == "ring":
            # A reduce-scatter and an all-gather, M - 1 steps each.
            steps = 2 * (workers - 1)
            return steps * self._network["latency"] + steps / workers * nbytes / self._bandwidth
        return self._network["latency"] + workers * nbytes / self._bandwidth

    def allgather_seconds(self, nbytes: int, workers: int) -> float:
        """Return how long ``workers`` need until each has the vectors of ``nbytes`` of all; 0 for a single one.

        ``ring``: M-1 steps, each with one latency and all the bytes of one worker. ``linear``: as an all-reduce.
        """
        if workers == 1:
            return 0.0
        if self._network["allreduce"] == "ring":
            return (workers - 1) * (self._network["latency"] + nbytes / self._bandwidth)
        return self._network["latency"] + workers * nbytes / self._bandwidth

    def combining_seconds(self, combine: str, nbytes: int, workers: int) -> float:
        """Return how long it takes to combine ``nbytes`` of each worker: "mean" all-reduces, "gather" all-gathers."""
        return (self.allgather_seconds if combine == "gather" else self.allreduce_seconds)(nbytes, workers)

    def combining_bytes(self, combine: str, nbytes: int, workers: int) -> int:
        """Return the bytes that all workers together send for what `combining_seconds` times."""
        if workers == 1:
            return 0
        if self._network["allreduce"] == "linear":
            return workers * nbytes
        return (workers - 1) * nbytes * (workers if combine == "gather" else 2)

    def _task_seconds(self, worker: int, task: int) -> float:
        if self._delays is not None:
            return self._delay(self._delays[worker], worker, task)
        if self._compute["distribution"] == "uniform":
            return self._uniform.at(worker, task)
        if self._compute["distribution"] == "lognormal":
            normal = self._at(TASK, worker, task).standard_normal()
            return self._seconds * math.exp(self._compute["sigma"] * normal - 0.5 * self._compute["sigma"] ** 2)
        if self._compute["distribution"] == "gamma":
            return _gamma(self._at(TASK, worker, task), self._means[worker], self._compute["cv_task"])
        return self._seconds

    def _uniform_seconds(self, first: Floats, second: Floats) -> Floats:
        return self._seconds * (1.0 + self._compute["jitter"] * (-1.0 + 2.0 * first))

    def _late_factors(self, first: Floats, second: Floats) -> Floats:
        """Return u for tasks that are late, else 0: the first number says which are, the second how much."""
        low, high = self._stragglers["extra"]
        return np.where(first < self._stragglers["probability"], low + (high - low) * second, 0.0)

    def _delay(self, column: tuple[float, ...], worker: int, task: int) -> float:
        """Return the seconds that the file has for a task; warn once if a column is over and begins again."""
        if task >= len(column) and not self._repeats:
            self._repeats = True
            place, rows = self._compute["delays"], len(column)
            log.warning(
                "%s=%s: has %d gradients of worker %d, which repeat from here on", delays.KEY, place, rows, worker
            )
        return column[task % len(column)]

    def _drawn_at(self, workers: Ints, tasks: Ints) -> Floats:
        """Return the draws of a task of each of some workers (n,); one that was asked for last is not drawn again."""
        drawn_tasks, drawn = self._last_draws
        new = np.flatnonzero(drawn_tasks[workers] != tasks)
        pairs = zip(workers[new].tolist(), tasks[new].tolist(), strict=True)
        drawn[workers[new]] = [self._draw(worker, task) for worker, task in pairs]
        drawn_tasks[workers[new]] = tasks[new]
        return drawn[workers]

    def _machine_mean(self, worker: int) -> float:
        if self._compute["distribution"] != "gamma":
            return self._seconds
        return _gamma(self._at(MACHINE, worker, 0), self._seconds, self._compute["cv_machine"])

    def _at(self, stream: int, worker: int, task: int) -> np.random.Generator:
        """Return the generator, set to the start of the draw's own stretch of 2^64 blocks of Philox."""
        # The first word counts the blocks within a draw; the other three name it.
        self._state["state"]["counter"] = (0, stream, worker, task)
        # Assigned, not only changed: NumPy copies the state in, and drops what the last draw had buffered.
        self._bits.state = self._state
        return self._generator


def _gamma(generator: np.random.Generator, mean: float, variation: float) -> float:
    # The shape 1 / variation² would be infinite: without variation the draw is the mean.
    if variation == 0.0:
        return mean
    shape = 1.0 / variation**2
    return float(mean / shape * generator.standard_gamma(shape))


def _plain(section: ComputeConfig | StragglersConfig | NetworkConfig) -> dict[str, Any]:
    """Return a section as plain values; Hydra's configurations come as `DictConfig`, tools' as dataclasses."""
    plain = OmegaConf.to_container(section if isinstance(section, DictConfig) else OmegaConf.structured(section))
    return cast(dict[str, Any], plain)
