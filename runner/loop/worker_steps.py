"""The local steps of a server's worker between a pull and a push, the same wherever its half is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from algorithms.base import Batch, Fields, Message, Worker
from runner.gradients.oracle import NetworkOracle
from runner.gradients.randomness import seed_generators
from runner.gradients.replica import BATCH_NORM_MOMENTUM
from runner.loop.messages import check_message


def take_steps(
    half: Worker,
    oracle: NetworkOracle,
    pulled: Message,
    batches: Sequence[Batch],
    *,
    seed: int,
    pushed: Fields,
    between: Callable[[Batch], None] = lambda batch: None,
) -> Message:
    """Have a half work on the batches that came with a pull, and return what it pushes.

    The oracle's batch-norm statistics (k,) are then what `running_average` takes in for all batches at once: those of
    one batch, or Σ_j 0.9^(H−j) b_j of several, b_1 … b_H.

    Args:
        half: the worker's half.
        oracle: gradients.
        pulled: what the worker pulled.
        batches: of its local steps, at least one.
        seed: of the run.
        pushed: the fields that the push must have.
        between: called with each batch but the last, after its step.

    Raises:
        InputError: the push is not what the method declared.
    """
    statistics = oracle.replica.statistics
    seen = statistics.new_zeros(statistics.shape if len(batches) > 1 else 0)
    message = Message()
    for batch in batches:
        if batch is not batches[-1]:
            # Decoding of the next samples begins while this step computes.
            oracle.expect(batches[batch.step + 1])
        seed_generators(oracle.device, seed, "work", batch.number)
        message = half.work(oracle, pulled, batch)
        if len(batches) > 1:
            # The next gradient overwrites them.
            seen.mul_(1 - BATCH_NORM_MOMENTUM).add_(statistics)
        if batch is not batches[-1]:
            between(batch)
    if len(batches) > 1:
        statistics.copy_(seen)
    return check_message(half, "push", message, pushed, oracle.replica.weights.dtype)
