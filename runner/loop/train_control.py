"""How far a run has come: counts, when to evaluate, save and stop, and what each evaluation writes down.

Every executor drives one `TrainControl` and nothing else around the run: it reports finished updates, asks `due`,
and hands over weights when an evaluation is due.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.gradients.async_scalars import AsyncScalars
from runner.gradients.evaluate import Evaluator
from runner.loop.evaluation_row import score_columns, training_columns
from runner.loop.executor import Executor, MetricsLogger, NullLogger, Observer
from runner.loop.schedule import Rate, Schedule
from runner.loop.stop import Exploded, Stop
from runner.run_folder import columns
from runner.run_folder.summary_keys import COMPLETED, DIVERGED, INTERRUPTED, PRUNED

CHECK_EVERY = 32
"""Updates between two looks at the loss, which a GPU may have computed some updates before."""


def synchronize(tensor: Tensor) -> None:
    """Wait until the device of a tensor has done all work that it was given: until then training is not over."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _mean_loss(totals: Sequence[float]) -> float | None:
    loss, _, count = totals
    return loss / count if count else None


def next_due(due: float, every: float, epoch: float) -> float:
    """Return the first of `due`, `due + every`, ... that is not reached yet."""
    # The tolerance: effective passes are quotients, and a whole one may come out a rounding below.
    return due + every * (math.floor((epoch + 1e-9 - due) / every) + 1)


class TrainControl:
    """Progress of a run.

    Args:
        samples: size n of the training set.
        epochs: effective passes to make.
        eval_every: effective passes between evaluations.
        checkpoint_every: effective passes between checkpoints; they are written right after an evaluation or when the
            run is stopped.
        schedule: learning rate by effective passes.
        evaluator: test score of weights; None without test samples, and on a rank that only counts, like the
            arguments after it.
        validator: score of weights on the validation split; None without one.
        logger: writer of rows and live progress.
        folder: the run folder, for the timeline.
        save: writes a checkpoint of (update number, state).
        stopping: returns whether a signal asks the run to stop.
        observers: called at every evaluation.
        target_loss: training loss at which the run is complete; neither validation nor test data stop a run.
        divergence_factor: how many times the loss of the first update, or 1 if that is less, the mean training loss
            between two evaluations may be; above it the run has diverged. None: only a loss that is not finite is
            divergence.
        report_step: told the number of updates after each of them.
        prunes: told each row but the last, returns whether a search stops the run after it.
        measure: columns about the objective at the weights, and the state of the executor.
        classifies: whether the model guesses classes, so that training has errors.

    Attributes:
        samples_seen: gradient evaluations so far.
        updates: updates so far; on a parameter server pushes, also those that it ignored.
        seconds: virtual or measured seconds so far, evaluation excluded.
        epochs_to_target: effective passes when `target_loss` was reached, None until then.
        train_wall: wall seconds spent on training, evaluation and checkpoints excluded, over all resumes.
    """

    def __init__(
        self,
        *,
        samples: int,
        epochs: float,
        eval_every: float,
        checkpoint_every: float,
        schedule: Schedule,
        evaluator: Evaluator | None = None,
        validator: Evaluator | None = None,
        logger: MetricsLogger | None = None,
        folder: Path | None = None,
        save: Callable[[int, dict[str, Any]], object] = lambda updates, state: None,
        stopping: Callable[[], bool] = lambda: False,
        observers: Sequence[Observer] = (),
        target_loss: float | None = None,
        divergence_factor: float | None = None,
        report_step: Callable[[int], None] = lambda updates: None,
        prunes: Callable[[dict[str, Any]], bool] = lambda row: False,
        measure: Callable[[Tensor, Executor], dict[str, float]] = lambda weights, executor: {},
        classifies: bool = True,
    ) -> None:
        self.samples = samples
        self.epochs = epochs
        self.eval_every = eval_every
        self.checkpoint_every = checkpoint_every
        self.schedule = schedule
        self.evaluator = evaluator
        self.validator = validator
        self.logger = logger or NullLogger()
        self.folder = folder
        self.save = save
        self.stopping = stopping
        self.observers = observers
        self.target_loss = target_loss
        self.divergence_factor = divergence_factor
        self.report_step = report_step
        self.prunes = prunes
        self.measure = measure
        self.classifies = classifies
        self.epochs_to_target: float | None = None
        self.samples_seen = 0.0
        self.updates = 0
        self.seconds = 0.0
        self.train_wall = 0.0
        # The next ones due, not a count: evaluations stay at multiples of `eval_every` also where an update steps over
        # one.
        self._next_eval = eval_every
        self._next_save = checkpoint_every
        self._train_loss: float | None = None
        # Of the first update, whose gradients are at the initial weights.
        self._first_loss: float | None = None
        self._first_sums: Tensor | None = None
        self._wall_mark: float | None = None
        # Only for the display: what it shows may be some updates old.
        self._scalars = AsyncScalars()

    @property
    def epoch(self) -> float:
        """Effective passes so far: gradient evaluations / n."""
        return self.samples_seen / self.samples

    def rate(self) -> Rate:
        """Return the learning rate of the next update."""
        return self.schedule.at(self.epoch)

    def start(self) -> None:
        """Start the wall clock of training."""
        self._wall_mark = time.perf_counter()

    def pause(self) -> None:
        """Stop the wall clock of training, as for an evaluation."""
        if self._wall_mark is not None:
            self.train_wall += time.perf_counter() - self._wall_mark
            self._wall_mark = None

    def wall(self) -> float:
        """Return wall seconds of training so far, evaluation and checkpoints excluded."""
        return self.train_wall + (0.0 if self._wall_mark is None else time.perf_counter() - self._wall_mark)

    def advance(self, gradients: float, seconds: float, totals: Tensor | None, staleness: int = 0) -> None:
        """Count one update of the weights.

        Args:
            gradients: gradient evaluations (samples) that went into it.
            seconds: the run's time now.
            totals: the oracle's running sums of losses, errors and samples; None if the caller looks at the loss.
            staleness: of this update, for the live display.

        Raises:
            Stop: the loss is NaN or infinite. On a GPU only an evaluation finds that out: what was seen of the loss
                before would depend on how far the GPU had come, and the result with it.
        """
        # Before the loss is looked at: a run that stops here has made this update.
        self.samples_seen += gradients
        self.updates += 1
        self.seconds = seconds
        self.report_step(self.updates)
        if totals is not None and self.updates == 1:
            # A copy on the device, read when an evaluation waits for it anyway.
            self._first_sums = totals.clone()
        # Reading the sums takes as long as a small update: not each time.
        if totals is not None and self.updates % CHECK_EVERY == 0:
            self._look(totals)
        self.logger.progress(
            epoch=self.epoch, samples=round(self.samples_seen), train_loss=self._train_loss, staleness=staleness
        )

    def spend(self, gradients: float, seconds: float) -> None:
        """Count gradient evaluations that made no update: those of a barrier, over at the run's second `seconds`."""
        self.samples_seen += gradients
        self.seconds = seconds
        self.logger.progress(epoch=self.epoch, samples=round(self.samples_seen), train_loss=self._train_loss)

    def _look(self, totals: Tensor) -> None:
        numbers = self._scalars(totals) if totals.is_cuda else totals.tolist()
        if numbers is None:
            return
        loss, _, count = numbers
        # A GPU's sums are of some moment before: when they were infinite first would differ from run to run.
        if not math.isfinite(loss) and not totals.is_cuda:
            raise Stop(DIVERGED)
        if count:
            self._train_loss = loss / count

    def due(self, finished: bool = False) -> bool:
        """Return whether to evaluate or stop now; `finished` says that no update will follow."""
        # A stop counts as due: `evaluate` is where a run is saved and ended.
        return finished or self.evaluation_due() or self.stopping()

    def evaluation_due(self) -> bool:
        """Return whether the counts say to evaluate now."""
        # The tolerance as in `next_due`: an evaluation that is due to one and not to the
        # other would come after every update.
        return self.epoch >= self._next_eval - 1e-9

    def skip_evaluation(self) -> None:
        """Count an evaluation that another rank makes."""
        if self.evaluation_due():
            # Counted here for all ranks alike, so that they agree on when the next evaluation is due.
            self._next_eval = next_due(self._next_eval, self.eval_every, self.epoch)

    def evaluate(
        self,
        weights: Tensor,
        statistics: Tensor,
        totals: Tensor,
        executor: Executor,
        finished: bool = False,
        stop: bool = False,
    ) -> None:
        """Evaluate, write a row, save a checkpoint, all as far as due; the wall clock of training stands meanwhile.

        Args:
            weights: flat weights (n,).
            statistics: flat running batch-norm statistics (k,).
            totals: sums of losses, errors and samples since the last evaluation; reset to zero here.
            executor: its timeline's staleness and its columns go into the row, its state into the checkpoint.
            finished: no update will follow.
            stop: another process was asked to stop.

        Raises:
            Stop: the loss is NaN, infinite or far above that of the start, a search prunes the run, or a signal asked
                to stop.
        """
        # First the device, then the clock: work that is still queued is training's time, not the evaluation's.
        synchronize(totals)
        self.pause()
        save, pruned = finished, False
        if finished or self.evaluation_due():
            self.skip_evaluation()
            row = self._row(weights, statistics, totals, executor)
            pruned = not finished and self.prunes(row)
            if self.epoch >= self._next_save - 1e-9:
                self._next_save = next_due(self._next_save, self.checkpoint_every, self.epoch)
                save = True
        # Asked once: a signal that comes after this stops the run at its next update, and is saved there.
        stop = (stop or self.stopping()) and not finished
        if save or stop or pruned:
            self._checkpoint(executor)
        # After the checkpoint: whoever catches this may end the process. A signal makes no difference to a run that is
        # over anyway, and a run that goes on is not asked about this row again.
        if pruned:
            raise Stop(PRUNED)
        if stop:
            raise Stop(INTERRUPTED)
        self.start()

    def _row(self, weights: Tensor, statistics: Tensor, totals: Tensor, executor: Executor) -> dict[str, Any]:
        tested: dict[str, float] = {}
        for evaluate, names in ((self.evaluator, columns.TEST_SCORE), (self.validator, columns.VALIDATION_SCORE)):
            tested |= score_columns(None if evaluate is None else evaluate(weights, statistics), names)
        objective = self.measure(weights, executor)
        # All three at once: the host waits for the device only here.
        loss, _, count = sums = totals.tolist()
        totals.zero_()
        # Asked once for a row: asking begins a new stretch.
        mean, largest = executor.timeline.staleness_since_last()
        row = {
            columns.EPOCH: self.epoch,
            # A method may count fractions of a gradient evaluation; the column is of whole samples.
            columns.SAMPLES: round(self.samples_seen),
            columns.UPDATES: self.updates,
            columns.SECONDS: self.seconds,
            **training_columns(sums, self.classifies),
            **tested,
            columns.LR: self.schedule.at(self.epoch).lr,
            columns.STALENESS_MEAN: mean,
            columns.STALENESS_MAX: largest,
            columns.BYTES_SENT: executor.bytes_sent,
            **executor.columns(),
            **objective,
        }
        # Written before the loss is judged, so that a run that diverged shows where.
        self.logger.log(row, samples_per_second=self.samples_seen / self.train_wall if self.train_wall else None)
        if not math.isfinite(loss) or not all(map(math.isfinite, (*tested.values(), *objective.values()))):
            raise Stop(DIVERGED)
        self._refuse_explosion(_mean_loss(sums))
        for observer in self.observers:
            observer(row, weights, statistics, executor)
        # Judged by the loss in the row just written, so the row that reached the target is on the disk.
        if self.target_loss is not None and count and loss / count <= self.target_loss:
            self.epochs_to_target = self.epoch
            raise Stop(COMPLETED)
        return row

    def _refuse_explosion(self, loss: float | None) -> None:
        """End a run whose training loss, the mean since the row before, is far above that of its first update.

        Only here, not after each update: a mean over few samples jumps, and on a GPU it is known at evaluations only.
        """
        if loss is None or self.divergence_factor is None:
            return
        self._read_first()
        if self._first_loss is None:
            # An executor that has no loss at hand when it makes the first update.
            self._first_loss = loss
        # A run that begins near a minimum, as from given weights, may rise to many times a loss of nearly nothing.
        beginning = max(self._first_loss, 1.0)
        if loss > self.divergence_factor * beginning:
            said = f"the training loss is {loss:.3g}, over {self.divergence_factor:g} times that of the first update"
            raise Exploded(f"{said}, {self._first_loss:.3g} (run.divergence_factor)")

    def _read_first(self) -> None:
        """Learn the loss of the first update, if its sums are there."""
        if self._first_sums is not None:
            self._first_loss, self._first_sums = _mean_loss(self._first_sums.tolist()), None

    def _checkpoint(self, executor: Executor) -> None:
        assert self.folder is not None
        # The spans go to the file before the state is taken, which counts the lines that are there: whoever resumes
        # cuts the file to that number, so no span is lost or told twice.
        executor.timeline.flush(self.folder)
        # "course" is what checkpoints call it since their first version.
        state = {"course": self.state_dict(), "executor": executor.state_dict(), "bytes_sent": executor.bytes_sent}
        self.save(self.updates, state)

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        self._read_first()
        return {
            "samples_seen": self.samples_seen,
            "updates": self.updates,
            "seconds": self.seconds,
            "train_wall": self.train_wall,
            "next_eval": self._next_eval,
            "next_save": self._next_save,
            "first_loss": self._first_loss,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.samples_seen = state["samples_seen"]
        self.updates = state["updates"]
        self.seconds = state["seconds"]
        self.train_wall = state["train_wall"]
        self._next_eval = state["next_eval"]
        # As it was saved, not counted anew from here: else a resumed run would evaluate
        # at other passes than a whole one.
        self._next_save = state["next_save"]
        # With a checkpoint from before this was kept nobody knows any more what the run began with: NaN is above and
        # below nothing.
        self._first_loss = state.get("first_loss", math.nan)
