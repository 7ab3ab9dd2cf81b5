"""When the workers of a parameter server meet, how long a run with barriers is, and the sum of what they answer."""

from __future__ import annotations

import math
from collections.abc import Iterable

from algorithms.base import Message, Stateful


def next_barrier(method: Stateful, updates: int) -> int | None:
    """Return the number of updates after which the next barrier comes, or None if no barrier follows.

    The barrier comes after more than `updates` updates; before the run, `updates` is -1, as a run may begin with one.
    """
    every = method.barrier_every
    if every is None:
        return None
    first = every if method.barrier_from is None else method.barrier_from
    # Strictly after `updates`: a barrier that is over must not be found again, at the same count.
    return first if updates < first else first + ((updates - first) // every + 1) * every


def count_barriers(method: Stateful, updates: int) -> int:
    """Return how many barriers a run of so many updates has; one after the last of them is not held."""
    found, at = 0, next_barrier(method, -1)
    # Below, not up to: nobody would compute with what a barrier after the last update brings.
    while at is not None and at < updates:
        found, at = found + 1, next_barrier(method, at)
    return found


def count_pushes(method: Stateful, *, samples: int, size: int, epochs: float) -> int | None:
    """Return the number of batches that make `epochs` effective passes, gradient evaluations / n, or just exceed them.

    A barrier's evaluations count with the push that follows it: no run ends with a barrier. None if each batch is
    evaluated once and barriers cost nothing, so that passes over the samples are effective passes.
    """
    if method.barrier_cost.gradients == 0 and method.cost.gradients == 1:
        return None
    # The tolerance keeps a rounding of the products from asking for one more push.
    budget, spent, count = epochs * samples - 1e-6, 0.0, 0
    per_epoch = math.ceil(samples / size)
    barrier = next_barrier(method, -1)
    # Counted push by push: with barriers in between, the cost of a push depends on its place.
    while spent < budget:
        if count == barrier:
            spent += samples * method.barrier_cost.gradients
            barrier = next_barrier(method, count)
        position = count % per_epoch
        # The last batch of an epoch is short, and so costs less.
        spent += min(size, samples - position * size) * method.evaluations(count)
        count += 1
    return count


def sum_messages(answers: Iterable[Message]) -> Message:
    """Return the sum of messages, added up in their order; the first one's tensors are not changed."""
    # One after the other in the order of the shards, not of arrival: float addition is not associative, and a barrier
    # has to give the same bits simulated, on processes and in a replay.
    total: Message = {}
    for answer in answers:
        if not total:
            total = {name: tensor.clone() for name, tensor in answer.items()}
        else:
            for name, tensor in answer.items():
                total[name].add_(tensor)
    return total
