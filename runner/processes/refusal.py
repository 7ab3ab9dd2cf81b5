"""A rank's wrong input, said once: by rank 0, whose exit code is the run's.

What a method sends is checked where it is made, on whichever rank that is. The rank leaves the line in the store where
all ranks meet and ends; rank 0 notices that it is gone, as it does with a lost peer, and finds the line there.
"""

# torch's type stubs do not know the stores that torch.distributed hands on.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from runner.config.errors import InputError
from runner.loop.stop import PeerLost
from runner.processes.rendezvous import Rendezvous

KEY = "refused"


@contextmanager
def told_by_rank_zero(rendezvous: Rendezvous) -> Iterator[None]:
    """Leave wrong input of the block for rank 0 to say, on another rank that was spawned.

    Under torchrun a rank says it itself: the agent ends all ranks as soon as one fails, and rank 0 may not come to it.

    Raises:
        PeerLost: in place of the `InputError`; this rank then ends without a word.
        InputError: on rank 0, and under torchrun.
    """
    try:
        yield
    except InputError as error:
        if rendezvous.rank == 0 or not rendezvous.local:
            raise
        rendezvous.store.set(KEY, str(error))
        raise PeerLost(f"rank {rendezvous.rank} refused its input: {error}") from error


def check_refusal(store: dist.Store) -> None:
    """Raise what a rank left in the store, if one did.

    Raises:
        InputError: the rank's.
    """
    if store.check([KEY]):
        raise InputError(store.get(KEY).decode())
