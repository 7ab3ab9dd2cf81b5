"""Records what each worker did when, and how stale its pushes were, in `timeline.jsonl` and `workers.json`."""

import logging
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.run_folder.contents import TIMELINE, WORKERS
from runner.run_folder.jsonl import append, truncate_lines, write_document

log = logging.getLogger("dcrun")

Floats = NDArray[np.float64]

KINDS: tuple[str, ...] = ("compute", "transfer", "wait", "stopped")
BUFFERED_LINES = 4096
NOTABLE = 0.01
"""Smallest share of the workers' time spent waiting at which the summary says who waits."""
TIMELINE_LINES = 1_000_000  # about 80 MB, enough for 160 epochs of CIFAR-10; longer runs keep totals, not every span


class Timeline:
    """Count and time what the workers of a run do, in seconds of the run, virtual or measured.

    Call `flush` when the run starts: from then on full buffers are written to the file, so memory is bounded. Calls
    must not come from several threads at once.

    Args:
        workers: Number of workers.
        writes: Whether spans become lines of the file. A rank without a run folder has sums alone, or its lines would
            fill its memory.
    """

    def __init__(self, workers: int, *, writes: bool = True) -> None:
        self._workers = workers
        self._writes = writes
        self._seconds: list[dict[str, float]] = [dict.fromkeys(KINDS, 0.0) for _ in range(workers)]
        # The last span of each kind: it alone may reach beyond the end of the run (see `_share`).
        self._last: list[dict[str, list[float]]] = [{kind: [0.0, 0.0] for kind in KINDS} for _ in range(workers)]
        self._gradients = [0] * workers
        self._histogram: Counter[int] = Counter()
        self._pushes = [0] * workers
        self._staleness = [0] * workers
        self._stalest = [0] * workers
        self._window = [0, 0, 0]  # pushes, sum and maximum of their staleness
        self._pending: list[str] = []
        self._lines = 0
        self._dropped = 0
        self._folder: Path | None = None
        self._warned = False

    def span(self, worker: int, what: str, start: float, end: float) -> None:
        """Note that a worker was busy with one thing from `start` to `end`.

        A worker's spans of one kind come in order. A span may end after the end of the run; `report` leaves out the
        part beyond it.

        Args:
            worker: From 0 to workers - 1.
            what: ``compute`` (each counts as one gradient), ``transfer``, ``wait``, or ``stopped``: computing whose
                result was dropped.
            start: Seconds since the run's start.
            end: Seconds since the run's start.

        Raises:
            ValueError: Another kind of span, or one that ends before it starts.
        """
        if what not in KINDS:
            raise ValueError(f"what={what}: no such kind of span; allowed: {', '.join(KINDS)}")
        if not (math.isfinite(start) and start <= end < math.inf):
            raise ValueError(f"span=[{start}, {end}]: ends before it starts; allowed: finite start <= end")
        # Sums, not spans: a run of millions of gradients keeps a few numbers for each worker.
        self._seconds[worker][what] += end - start
        self._last[worker][what] = [start, end]
        if what == "compute":
            self._gradients[worker] += 1
        if not self._writes:
            return
        # The sums above still count the span: only its line is left out.
        if self._lines + len(self._pending) >= TIMELINE_LINES:
            self._dropped += 1
            return
        # Formatted by hand, since every gradient pays for three of these.
        # Twelve digits are a microsecond in a run of a week.
        self._pending.append(f'{{"worker": {worker}, "what": "{what}", "start": {start:.12g}, "end": {end:.12g}}}\n')
        if len(self._pending) >= BUFFERED_LINES and self._folder is not None:
            self.flush(self._folder)

    def task(self, worker: int, pulled: float, begin: float, end: float, arrival: float) -> None:
        """Note a worker's task: a pull from `pulled` to `begin`, computing until `end`, a push until `arrival`."""
        self.span(worker, "transfer", pulled, begin)
        self.span(worker, "compute", begin, end)
        self.span(worker, "transfer", end, arrival)

    def spans(self, what: str, starts: Floats, ends: Floats, chosen: NDArray[np.bool_] | None = None) -> None:
        """Note a span of each worker, as `span` does.

        Args:
            what: see `span`.
            starts: by worker, seconds since the run's start (M,).
            ends: likewise.
            chosen: which workers have a span (M,); None for all.
        """
        for worker, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            if chosen is None or chosen[worker]:
                self.span(worker, what, start, end)

    def round_trip(
        self, worker: int, begin: float, arrived: float, handled: float, compute: float, what: str = "compute"
    ) -> float:
        """Note the round trip from a reply that left the server at `begin` to the handling of the worker's next push.

        The server does not know when the reply reached the worker. The time until the push arrived, without the
        computing, is taken as half for the way to the worker and half for the way back.

        Args:
            worker: From 0 to workers - 1.
            begin: Seconds since the run's start, as those below; the run's clock may have stopped in between.
            arrived: When the push arrived at the server.
            handled: When the server had handled it.
            compute: How many seconds the worker computed.
            what: ``stopped`` if the result was dropped, and the push only says so.

        Returns:
            How many seconds of the computing went by on the run's clock.
        """
        # The run's clock stands during an evaluation, the worker does not: a push may have arrived while it stood. The
        # spans are cut to the seconds that the clock saw.
        arrived = min(max(arrived, begin), handled)
        compute = min(compute, arrived - begin)
        half = (arrived - begin - compute) / 2
        self.span(worker, "transfer", begin, begin + half)
        self.span(worker, what, begin + half, begin + half + compute)
        self.span(worker, "transfer", begin + half + compute, arrived)
        self.span(worker, "wait", arrived, handled)
        return compute

    def staleness(self, worker: int, value: int) -> None:
        """Note the staleness of a push: how many updates the server made between its pull and its push."""
        self._histogram[value] += 1
        self._pushes[worker] += 1
        self._staleness[worker] += value
        self._stalest[worker] = max(self._stalest[worker], value)
        pushes, total, most = self._window
        # For the next row of metrics; the numbers above are of the whole run.
        self._window = [pushes + 1, total + value, max(most, value)]

    def staleness_since_last(self) -> tuple[float, int]:
        """Return mean and maximum of the staleness since the last call, (0.0, 0) if nothing was pushed."""
        pushes, total, most = self._window
        self._window = [0, 0, 0]
        return (total / pushes if pushes else 0.0), most

    def report(self, seconds: float) -> dict[str, Any]:
        """Return the numbers of the whole run, ready for JSON.

        Args:
            seconds: The run's length.

        Returns:
            ``seconds``; ``workers``, a row for each worker with its ``utilization`` (share of the run spent
            computing), the shares ``transferring`` and ``waiting``, where it was stopped the share ``stopped`` of what
            it computed for nothing, ``gradients``, and mean and maximum of its staleness (null without pushes);
            ``staleness``, a histogram of pushes by staleness; ``timeline_lines`` and
            ``timeline_dropped`` (spans that the timeline has no room for; all other numbers count them).
        """
        return {
            "seconds": seconds,
            "workers": [self._row(worker, seconds) for worker in range(self._workers)],
            "staleness": {str(value): self._histogram[value] for value in sorted(self._histogram)},
            "timeline_lines": self._lines + len(self._pending),
            "timeline_dropped": self._dropped,
        }

    def slowest(self, seconds: float) -> dict[str, Any]:
        """Return which worker is the slowest, for `summary.json`; empty with a single worker.

        Args:
            seconds: The run's length.

        Returns:
            ``slowest``: the ``worker`` that computed longest on a gradient, its ``seconds_per_gradient``, how many
            times the median of all workers that is (``times_median``), and ``waiting_share``: of all the time that
            workers waited or transferred, the share of this one. A worker for which the others wait has nearly none of
            it. ``waiting_share`` is null if the workers waited less than 1 % of the run. ``staleness_by_worker``: the
            mean of each worker, null without pushes.
        """
        # A worker that has computed nothing yet must not divide by zero.
        counts = [max(count, 1) for count in self._gradients]
        # By gradient, not in total: a worker that was lost early computed little, but not fast.
        means = [kinds["compute"] / count for kinds, count in zip(self._seconds, counts, strict=True)]
        if self._workers == 1 or not any(means):
            return {}
        slow = max(range(self._workers), key=means.__getitem__)
        idle = [self._share(m, "transfer", seconds) + self._share(m, "wait", seconds) for m in range(self._workers)]
        typical = statistics.median(means)
        staleness = [
            total / pushes if pushes else None for total, pushes in zip(self._staleness, self._pushes, strict=True)
        ]
        return {
            "slowest": {
                "worker": slow,
                "seconds_per_gradient": means[slow],
                "times_median": means[slow] / typical if typical else None,
                "waiting_share": idle[slow] / sum(idle) if sum(idle) > NOTABLE * self._workers else None,
            },
            "staleness_by_worker": staleness,
        }

    def totals(self, worker: int) -> list[float]:
        """Return the seconds of each kind and the gradients of a worker, for `merge`."""
        return [*self._seconds[worker].values(), float(self._gradients[worker])]

    def merge(self, worker: int, totals: Sequence[float]) -> None:
        """Take over the `totals` of a worker that another process records; its spans stay in that process."""
        # Replaced, not added: the other process counts from the run's start.
        self._seconds[worker] = dict(zip(KINDS, totals[:-1], strict=True))
        self._gradients[worker] = int(totals[-1])

    def _row(self, worker: int, seconds: float) -> dict[str, Any]:
        pushes = self._pushes[worker]
        stopped = self._share(worker, "stopped", seconds)
        return {
            "worker": worker,
            "utilization": self._share(worker, "compute", seconds),
            "transferring": self._share(worker, "transfer", seconds),
            "waiting": self._share(worker, "wait", seconds),
            **({"stopped": stopped} if stopped else {}),
            "gradients": self._gradients[worker],
            "staleness_mean": self._staleness[worker] / pushes if pushes else None,
            "staleness_max": self._stalest[worker] if pushes else None,
        }

    def _share(self, worker: int, what: str, seconds: float) -> float:
        start, end = self._last[worker][what]
        # On a virtual clock a span is noted when it begins, so the last one of a kind may end after the run.
        beyond = max(0.0, end - max(start, seconds))
        return (self._seconds[worker][what] - beyond) / seconds if seconds > 0.0 else 0.0

    def flush(self, folder: Path) -> None:
        """Append the buffered spans to the folder's `timeline.jsonl`.

        A line is ``{"worker": 0, "what": "compute", "start": 0.5, "end": 1.5}``, with times in seconds.

        The first call cuts the file back to the lines that this object knows: none in a new run, those of the
        checkpoint in a resumed one.

        If they cannot be written (a full disk), a warning says so once, and they count as dropped.
        """
        path = folder / TIMELINE
        try:
            # The first call for this folder.
            if folder != self._folder:
                # What the file really has, which may be less after a power failure: the next checkpoint counts from
                # there.
                self._lines = truncate_lines(path, self._lines)
                self._folder = folder
            append(path, "".join(self._pending), sync=False)
            self._lines += len(self._pending)
        except OSError as error:
            self._dropped += len(self._pending)
            if not self._warned:
                log.warning("%s could not be written (%s); the run goes on", path, error.strerror or error)
            self._warned = True
        self._pending.clear()

    def write(self, folder: Path, seconds: float) -> None:
        """Flush the timeline and write the report to the folder's `workers.json`.

        Args:
            folder: The run folder.
            seconds: The run's length.

        Raises:
            OSError: The report cannot be written.
        """
        self.flush(folder)
        write_document(folder / WORKERS, self.report(seconds))

    def state_dict(self) -> dict[str, Any]:
        """Return everything recorded so far as plain JSON values; flush first if the folder is known."""
        if self._folder is not None:
            self.flush(self._folder)
        return {
            "seconds": [dict(kinds) for kinds in self._seconds],
            "last": [{kind: list(span) for kind, span in kinds.items()} for kinds in self._last],
            "gradients": list(self._gradients),
            "histogram": [[value, self._histogram[value]] for value in sorted(self._histogram)],
            "pushes": list(self._pushes),
            "staleness": list(self._staleness),
            "stalest": list(self._stalest),
            "window": list(self._window),
            # Empty after a flush.
            "pending": list(self._pending),
            "lines": self._lines,
            "dropped": self._dropped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state; the next `flush` cuts the timeline back to the lines that it had at that time.

        Raises:
            ValueError: The state is of another number of workers.
        """
        if len(state["gradients"]) != self._workers:
            raise ValueError(
                f"cluster.workers={self._workers}: the checkpoint has {len(state['gradients'])} workers; "
                f"allowed: {len(state['gradients'])}"
            )
        # Older states do not have all kinds.
        self._seconds = [dict.fromkeys(KINDS, 0.0) | kinds for kinds in state["seconds"]]
        self._last = [{kind: list(kinds.get(kind, (0.0, 0.0))) for kind in KINDS} for kinds in state["last"]]
        self._gradients = list(state["gradients"])
        # Pairs, not a dictionary: the keys of a JSON object are strings.
        self._histogram = Counter(dict(state["histogram"]))
        self._pushes = list(state["pushes"])
        self._staleness = list(state["staleness"])
        self._stalest = list(state["stalest"])
        self._window = list(state["window"])
        self._pending = list(state["pending"])
        self._lines = state["lines"]
        self._dropped = state["dropped"]
        # The next flush is then a first one for its folder, and cuts the file back.
        self._folder = None
