"""What a step of computing and a combination between processes take on this machine."""

from __future__ import annotations

from multiprocessing.connection import Connection

import torch
import torch.distributed as dist

from algorithms.base import Collective, Step
from runner.config.exit_codes import run_guarded
from runner.config.forkserver import forkserver_context
from runner.config.process_settings import set_process
from runner.processes import leftovers
from runner.processes.async_collective import AsyncCollective, NeighbourExchange
from runner.processes.interface import check_loopback
from runner.processes.rendezvous import file_rendezvous, join_group
from runner.train.components import RunComponents
from runner.train.timing import median_seconds


def step_seconds(components: RunComponents) -> float:
    """Return the seconds of one local step of a collective method on one worker's share, on this process's device."""
    method: Collective = components.method
    method.start(components.oracle.replica.weights.clone(), 0, components.workers, components.cfg.run.compile)
    batch = components.batches.shares(0, components.workers)[0]
    return median_seconds(lambda: method.local(components.oracle, batch, Step(lr=0.0)), components.device)


def combination_seconds(elements: int, groups: list[list[int]], combine: str, timeout: float) -> float:
    """Return the seconds in which processes of this machine combine a vector of each, in CPU memory.

    Args:
        elements: float32 elements of one rank's vector.
        groups: by process, of at least 2, with which it combines, itself too.
        combine: "mean", "gather" or "mix", see `algorithms.base.Collective`.
        timeout: seconds that a transfer may take.

    Raises:
        InputError: processes of this machine cannot reach each other.
        RuntimeError: the processes did not come to an answer.
    """
    check_loopback("run.advise", "true")
    world = len(groups)
    context = forkserver_context("runner.train.measure")
    # A file rather than a port: no other program can have taken it, and no firewall is asked.
    place = leftovers.make_folder()
    ours, theirs = context.Pipe(duplex=False)
    ranks = [
        context.Process(
            target=_time_combination, args=(rank, groups, str(place / "store"), elements, combine, timeout, theirs)
        )
        for rank in range(world)
    ]
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
        # Rank 0 sends its time only when all have combined, so an empty pipe means that
        # some rank failed, and has said why.
        if not ours.poll():
            raise RuntimeError(f"{world} processes could not combine {elements:,} elements")
        return ours.recv()
    finally:
        for rank in ranks:
            if rank.is_alive():
                # Only a Ctrl-C, which ends the wait above, leaves any alive.
                rank.kill()
        leftovers.discard(place)


def _time_combination(
    rank: int, groups: list[list[int]], path: str, elements: int, combine: str, timeout: float, pipe: Connection
) -> None:
    set_process()

    def call() -> int:
        # As many processes as workers share this machine; with all cores each, they would measure each other's waiting.
        torch.set_num_threads(1)
        world = len(groups)
        join_group(file_rendezvous(path, rank, world, timeout), torch.device("cpu"))
        if combine == "mix":
            combiner = NeighbourExchange(groups[rank], rank)
        else:
            combiner = AsyncCollective("gather" if combine == "gather" else "mean", world)
        vector = torch.zeros(elements)
        # Ranks begin each combination together: what is timed is the combination, not the wait for a late rank.
        seconds = median_seconds(lambda: combiner.start(vector).wait(), before=dist.barrier)
        if rank == 0:
            pipe.send(seconds)
        dist.destroy_process_group()
        return 0

    run_guarded(call, None, f"rank {rank}")
