"""Who has which batch, where workers take the batches one by one: on a parameter server or on a shared memory."""

from __future__ import annotations

import itertools
from typing import Any

from algorithms.base import Batch
from runner.loop.batches import Batches


class Leases:
    """Hand out batches one by one; a lost worker's batch is handed out again.

    A batch is in exactly one place: not handed out yet, held by a worker, returned, or done.

    Attributes:
        held: batch numbers by worker, in the order in which they were handed out.
        returned: what lost workers held, to be handed out before anything else.
        idle: workers that asked when there was nothing to hand out.
        gone: workers that were lost.
        shards: by worker, which shards of the training set it has, where they are fixed; empty where not.
        cut_short: whether a worker got fewer batches than it takes steps on, as it would not have in a longer run.
        quota: batches that may be handed out before the workers meet at a barrier; None for all of them.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.next = 0
        # The order of insertion is the order of the leases; `restart` and checkpoints keep it.
        self.held: dict[int, list[int]] = {}
        self.returned: list[int] = []
        self.idle: set[int] = set()
        self.gone: set[int] = set()
        self._drawn_from: dict[int, list[int]] = {}
        self._assign_shards()
        self.cut_short = False
        self.quota: int | None = None

    def lease(self, worker: int, steps: int = 1) -> list[Batch]:
        """Return the next batches for `worker`, as many as it takes steps on, or as are left to hand out.

        Return none if none are left, or none before a barrier.
        """
        numbers = list[int]()
        while len(numbers) < steps and (number := self._next_number()) is not None:
            numbers.append(number)
        if not numbers:
            self.idle.add(worker)
            return []
        self.idle.discard(worker)
        self.cut_short |= len(numbers) < steps
        self.held[worker] = numbers
        # Shards that it takes over later are not in these batches.
        self._drawn_from[worker] = list(self.shards.get(worker, ()))
        return self.held_batches(worker)

    def _next_number(self) -> int | None:
        """Take the number of the batch that comes next; None if there is none, or none before a barrier."""
        # A batch taken back from a lost worker is no longer handed out, so it is leased again on this side of the
        # barrier.
        if self.quota is not None and self._handed_out >= self.quota:
            return None
        # What a lost worker held goes first, so that its epoch is complete before much of the next is done.
        if self.returned:
            return self.returned.pop(0)
        if self.next < len(self.batches):
            self.next += 1
            return self.next - 1
        return None

    def again(self, worker: int) -> list[Batch]:
        """Return the batches that `worker` holds, for it to begin anew; drawn from the shards that it has now."""
        self._drawn_from[worker] = list(self.shards.get(worker, ()))
        return self.held_batches(worker)

    def done(self, worker: int) -> list[Batch]:
        """Return the batches that `worker` held and mark them as done."""
        batches = self.held_batches(worker)
        del self.held[worker]
        return batches

    def held_batches(self, worker: int) -> list[Batch]:
        """Return the batches that `worker` holds."""
        return self.batches.steps(self.held[worker], self.drawn_from(worker))

    def drawn_from(self, worker: int) -> list[int]:
        """Return the shards, where they are fixed, that the batches which `worker` holds are drawn from."""
        return self._drawn_from.get(worker, [])

    def _assign_shards(self) -> None:
        self.shards = {worker: [worker] for worker in range(self.batches.shards or 0)}

    def reassign_shards(self, lost: int) -> tuple[int, list[int]] | None:
        """Give a lost worker's shards to the living worker that has the fewest, of equals to the one that comes first.

        Returns:
            That worker and the numbers of the shards; None if shards are not fixed, or no worker is alive.
        """
        # In the order of the numbers, so that of equals a replay picks the same one.
        living = [worker for worker in self.shards if worker not in self.gone]
        if not living or not self.shards[lost]:
            return None
        worker = min(living, key=lambda worker: len(self.shards[worker]))
        # Emptied, or a second look at the lost worker would hand its shards on twice.
        shards, self.shards[lost] = self.shards[lost], []
        self.shards[worker] += shards
        return worker, shards

    def release(self, worker: int) -> list[int]:
        """Take back what a lost worker held, and return the idle workers that are to lease now because of it."""
        self.gone.add(worker)
        self.idle.discard(worker)
        if worker in self.held:
            # The number alone is taken back: whoever leases it next gets the same samples.
            self.returned += self.held.pop(worker)
        # In the order of their numbers, so that a replay wakes the same ones.
        return sorted(self.idle)[: len(self.returned)]

    def restart(self) -> None:
        """Take everything back: all workers, lost ones too, begin anew."""
        # In the order in which they were leased, so that a run and its replay hand them out again alike.
        self.returned += itertools.chain.from_iterable(self.held.values())
        self.held.clear()
        self.idle.clear()
        self.gone.clear()
        self._assign_shards()

    @property
    def _handed_out(self) -> int:
        """Batches that are held or done."""
        return self.next - len(self.returned)

    @property
    def at_barrier(self) -> bool:
        """Whether all workers have come to a barrier that has more batches behind it."""
        # Nothing held: a barrier begins when every push before it is in.
        return self.quota is not None and self._handed_out >= self.quota and not self.held and not self.finished

    @property
    def finished(self) -> bool:
        """Whether every batch is done."""
        # A batch that is held may still come back, so the run is not over before its push is in.
        return self.next >= len(self.batches) and not self.held and not self.returned

    def state_dict(self) -> dict[str, Any]:
        """Return the leases as plain values."""
        return {
            "next": self.next,
            "held": {worker: list(numbers) for worker, numbers in self.held.items()},
            "returned": list(self.returned),
            "idle": sorted(self.idle),
            "gone": sorted(self.gone),
            "parts": {worker: list(shards) for worker, shards in self.shards.items()},
            "drawn_from": {worker: list(shards) for worker, shards in self._drawn_from.items()},
            "cut_short": self.cut_short,
            "quota": self.quota,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.next = state["next"]
        # Checkpoints keep a dictionary's order, which is that of the leases.
        self.held = {int(worker): _numbers(held) for worker, held in state["held"].items()}
        self.returned = list(state["returned"])
        self.idle = set(state["idle"])
        self.gone = set(state["gone"])
        # The files' keys are older than the word: shards were called parts, and before there were any, were not stored.
        self.shards = {int(worker): list(shards) for worker, shards in state.get("parts", {}).items()}
        self._drawn_from = {int(worker): list(shards) for worker, shards in state.get("drawn_from", {}).items()}
        self.cut_short = state.get("cut_short", False)
        self.quota = state.get("quota")


def _numbers(held: int | list[int]) -> list[int]:
    """Return the numbers of what a worker held, which in older checkpoints is one batch."""
    return [held] if isinstance(held, int) else list(held)
