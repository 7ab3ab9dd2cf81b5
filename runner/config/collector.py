"""Python's garbage collector while much is imported: what modules define stays, so there is nothing to collect.

The collector looks through all that there is each time much is new. PyTorch defines some 200,000 objects: the collector
then takes an eighth of the time of the import, and a tenth of a second each time that it looks again later.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage while the block imports, and never look again at what there is at its end."""
    was_on, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # If all was imported before, only what the process has made since would be kept for good.
        if len(sys.modules) > known:
            gc.freeze()
        if was_on:
            gc.enable()


def leave_to_forks() -> None:
    """Collect no garbage in this process, which imports and forks, and none of it in the processes forked from it.

    The pages that it fills are then shared with them for good: to look at an object the collector writes beside it.
    """
    gc.disable()
    os.register_at_fork(before=gc.freeze, after_in_child=gc.enable)
