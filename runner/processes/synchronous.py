"""What the ranks of collectives and pipelines do alike, as they step together: run, evaluate, lose a peer.

No rank can go on without the others, so a lost peer ends the run, back to its last checkpoint: an error of a transfer
says that some peer is gone, but not which, and whoever watches the processes names it.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from runner.gradients.oracle import NetworkOracle
from runner.loop.batches import Batches
from runner.loop.executor import Executor
from runner.loop.stop import PeerLost, Stop
from runner.loop.train_control import TrainControl, synchronize
from runner.processes.links import is_peers_fault, reason
from runner.processes.refusal import check_refusal
from runner.processes.rendezvous import Rendezvous
from runner.run_folder.summary_keys import INTERRUPTED
from runner.run_folder.timeline import Timeline

GO_ON, STOP = "go on", "stop"
"""What rank 0 tells the others after an evaluation."""


class SynchronousProcess(Executor):
    """One of several ranks that are all alike, but that rank 0 owns the run folder.

    Args:
        rendezvous: rank, number of ranks and store.
        oracle: gradients.
        batches: the run's batches, one for each step of all ranks.
        control: counts, evaluation, checkpoints; on ranks other than 0 it only counts.
        timeline: what each worker did when, kept on rank 0.

    Attributes:
        step: number of the step that is being taken, or comes next.
    """

    def __init__(
        self,
        rendezvous: Rendezvous,
        *,
        oracle: NetworkOracle,
        batches: Batches,
        control: TrainControl,
        timeline: Timeline,
    ) -> None:
        self.rendezvous = rendezvous
        self.rank, self.world = rendezvous.rank, rendezvous.world
        self.oracle = oracle
        self.batches = batches
        self.control = control
        self.timeline = timeline
        self.step = 0

    def run(self) -> None:
        """Run to the end of the batches.

        Raises:
            Stop: the run diverged or was asked to stop.
            PeerLost: another rank is gone.
            InputError: what a rank's method had to send is not what it declared.
        """
        try:
            self._run()
        except RuntimeError as error:
            if not is_peers_fault(error):
                raise
            # The peer may have ended because of wrong input, which it left for rank 0 to say.
            if self.rank == 0:
                check_refusal(self.rendezvous.store)
            # Which peer it was, this rank cannot know: the error is that of whichever connection broke first.
            raise PeerLost(f"rank {self.rank} lost a peer in step {self.step}: {reason(error)}") from error

    def _run(self) -> None:
        if self.step >= len(self.batches):
            # Killed between its last checkpoint and its result: nothing is evaluated any more, and what rank 0 writes
            # is of all ranks.
            self._gather()
        self.control.start()
        while self.step < len(self.batches):
            stop = self._take_step()
            self.step += 1
            finished = self.step == len(self.batches)
            # All ranks come to the same answer here: they count epochs alike, and they agreed on a stop in the step.
            if finished or stop or self.control.evaluation_due():
                self._evaluate(finished, stop == INTERRUPTED)
            # A stop in the very last step is no stop: the run is complete.
            if stop and not finished:
                raise Stop(stop)
        self.control.pause()

    @abstractmethod
    def _take_step(self) -> str | None:
        """Take one step with the other ranks; return the status with which all ranks stop now, or None to go on."""

    @abstractmethod
    def _gather(self) -> Tensor | None:
        """Gather at rank 0 what an evaluation and a checkpoint need of all ranks; all ranks call it.

        Returns:
            On rank 0 the sums (3,) of losses, errors and samples since the last evaluation.
        """

    def _evaluate(self, finished: bool, stop: bool) -> None:
        """Gather at rank 0, which evaluates and saves while the others wait; no clock of training runs meanwhile."""
        synchronize(self.oracle.totals)
        self.control.pause()
        totals = self._gather()
        # On all ranks: rank 0 has the sums of all now, and a rank that kept its own would add them once more next time.
        self.oracle.totals.zero_()
        # Ranks wait at the store, not in a collective: an evaluation may take longer than a transfer is allowed to.
        # A key of its own for each evaluation, since the store keeps the earlier answers.
        key = f"evaluated/{self.step}"
        if self.rank == 0:
            assert totals is not None
            self.oracle.totals.copy_(totals)
            # Whatever ends rank 0 here, a full disk or a loss that is not finite, must end the others too.
            verdict = STOP
            try:
                self._evaluate_gathered(finished, stop)
                verdict = GO_ON
            finally:
                self.rendezvous.store.set(key, verdict)
        else:
            # Counted as on rank 0: the next evaluation must be due on all ranks in the same step.
            self.control.skip_evaluation()
            self.rendezvous.store.wait([key])
            if self.rendezvous.store.get(key) != GO_ON.encode():
                # The reason is rank 0's to say, and to write down.
                raise Stop(INTERRUPTED)
        self.control.start()

    def _evaluate_gathered(self, finished: bool, stop: bool) -> None:
        """Evaluate and save what was gathered, on rank 0."""
        totals = self.oracle.totals
        self.control.evaluate(self.weights(), self.running_statistics(), totals, self, finished, stop)
