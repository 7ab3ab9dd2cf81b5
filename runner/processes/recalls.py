"""How a worker hears, while it computes, that the server wants it to stop.

The server may send a number at any time, on a tag of its own: the pull that is recalled. The worker has a receive
posted for it, and looks whether something has come between two pieces of a gradient, between two gradients, and while
it acts a delay. Nobody waits for anybody: the worker answers with a push that says it has dropped what it computed, and
if its gradient was on its way already, the number is that of a pull before, and of no meaning any more.
"""

from __future__ import annotations

import torch
from torch.distributed import Work

from runner.processes.links import RECALLS, Link

NOTHING = -1
"""What is in a posted receive's place until a number comes."""
LOOK_SECONDS = 0.005
"""Seconds between two looks while a worker only acts a delay."""


class Recalled(Exception):
    """What a worker computes is worthless; raised where it computes, to leave all of it."""


class RecallInbox:
    """A worker's side.

    Args:
        link: to the server.

    Attributes:
        computing: the pull that the worker computes with: the number of pushes before it.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.computing = NOTHING
        self._recalled = NOTHING
        self._post()

    def _post(self) -> None:
        self._number = torch.full((1,), NOTHING)
        self._posted = self.link.post(self._number, RECALLS)

    def look(self) -> None:
        """See what has come.

        Raises:
            Recalled: the server wants the worker to stop what it computes.
        """
        # What has come stands in the tensor, also if nobody has waited for it.
        while int(self._number) != NOTHING:
            self._posted.wait()
            self._recalled = int(self._number)
            self._post()
        if self._recalled == self.computing:
            raise Recalled


class RecallOutbox:
    """The server's side, for one worker.

    Args:
        link: to it.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._sending: dict[int, tuple[torch.Tensor, Work]] = {}

    def send(self, pull: int) -> None:
        """Recall a pull."""
        # Not waited for: it leaves when the worker has a receive posted, and a worker may look seldom.
        number = torch.tensor([pull])
        self._sending[pull] = (number, self.link.send(number, RECALLS))

    def heard(self, pull: int) -> None:
        """Learn that the worker has heard of this one, and so of those before."""
        self._sending = {later: sent for later, sent in self._sending.items() if later > pull}
