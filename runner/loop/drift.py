"""What staleness does to weights: how far they move between a pull and its push, and where an update then leads.

    gap            RMSE(w − w_m) = ‖w − w_m‖ / √n       w before the update of worker m's push, w_m as m pulled it
    update_cosine  ⟨g, w − w⁺⟩ / (‖g‖ ‖w − w⁺‖)         g as m pushed it, w⁺ the weights after the update

The gap is that of Barkai et al., "Gap-Aware Mitigation of Gradient Staleness", ICLR 2020, and of the papers on DANA. Of
a method that sends other weights than its own, as weights further along the momentum, w_m is what it sent. Where each
worker has weights of its own, w is those of worker m. The cosine is 1 for a step along the pushed gradient, and below
for one that momentum, a compensation, or an average with others' weights turns.

The gap of every push counts, also of one that the method ignores or only collects; the cosine of every update that
moves the weights. Where neither the method nor the executor keeps what a worker pulled, the gap costs a copy of the
weights for each worker, made at each pull; at a push it takes two passes over the weights. The cosine costs one copy
of the weights and five passes. On a GPU the host waits for none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from algorithms.base import Layout, Message, field_of
from runner.config.errors import InputError
from runner.run_folder import columns

GAP = "gap"
UPDATE_COSINE = "update_cosine"
OF_UPDATES = (GAP, UPDATE_COSINE)
"""Diagnostics of what a server's updates do; all others are measured at an evaluation, layer by layer."""
_GAPS, _LARGEST, _PUSHES, _COSINES, _UPDATES = range(5)


class Drift:
    """Measure the updates of a parameter server.

    Args:
        asked: what to measure, some of `OF_UPDATES`.
        layout: of the method's messages.
        w: weights (n,) as the server has them.
        workers: number of workers M.

    Raises:
        InputError: the method's messages do not have what is asked for.
    """

    def __init__(self, asked: Sequence[str], layout: Layout, w: Tensor, workers: int) -> None:
        self.asked = frozenset(asked)
        for name, fields, key in ((GAP, layout.pull, "w"), (UPDATE_COSINE, layout.push, "g")):
            if name in self.asked and (key not in fields or field_of(fields[key], w.dtype).size != w.numel()):
                what = f"messages of this method hold no weights or gradients of the network ({key})"
                raise InputError.of("run.diagnostics", name, what, "with methods whose messages do")
        self._pulled: list[Tensor | None] = [None] * workers
        self._before = torch.empty_like(w) if UPDATE_COSINE in self.asked else None
        # Sums since the last row: gaps, the largest, pushes; cosines, updates.
        self._sums = torch.zeros(5, dtype=torch.float64, device=w.device)
        # Whether a row has told them: the next push begins anew.
        self._told = False

    def pulled(self, worker: int, message: Message, kept: Message | None) -> None:
        """Learn what a worker pulls; keep a copy if nobody else does."""
        if GAP not in self.asked or kept is not None:
            return
        if (copy := self._pulled[worker]) is None:
            copy = self._pulled[worker] = torch.empty_like(message["w"])
        copy.copy_(message["w"])

    def before(self, worker: int, w: Tensor, kept: Message | None) -> None:
        """Measure how far the weights `w` are from those that a worker pulled; its push is taken in next."""
        if self._told:
            self._sums.zero_()
            self._told = False
        if self._before is not None:
            self._before.copy_(w)
        pulled = self._pulled[worker] if kept is None else kept["w"]
        if GAP in self.asked and pulled is not None:
            gap = _norm(w - pulled) / w.numel() ** 0.5
            self._sums[_GAPS] += gap
            self._sums[_LARGEST] = torch.maximum(self._sums[_LARGEST], gap)
            self._sums[_PUSHES] += 1

    def after(self, w: Tensor, message: Message) -> None:
        """Measure where the update of a push led, which made the weights `w`."""
        if self._before is None:
            return
        g, moved = message["g"], self._before.sub_(w)
        norms = _norm(g) * _norm(moved)
        # None of a gradient of zero, nor of a push that leaves the weights.
        turned = norms > 0
        self._sums[_COSINES] += torch.where(turned, torch.dot(g, moved).double() / norms, 0.0)
        self._sums[_UPDATES] += turned

    def columns(self) -> dict[str, float]:
        """Return the means since the last row, and the largest gap; nothing of what there was none of."""
        self._told = True
        gaps, largest, pushes, cosines, updates = self._sums.tolist()
        found = {columns.GAP_MEAN: gaps / pushes, columns.GAP_MAX: largest} if pushes else {}
        return found | ({columns.UPDATE_COSINE: cosines / updates} if updates else {})

    def state_dict(self) -> dict[str, Any]:
        """Return what the next row depends on; what was pulled is the executor's to keep, or pulled anew."""
        return {"sums": self._sums, "told": self._told}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums.copy_(state["sums"])
        self._told = state["told"]


def _norm(vector: Tensor) -> Tensor:
    """Return a vector's Euclidean norm in double precision, as a tensor on its device."""
    return torch.linalg.vector_norm(vector, dtype=torch.float64)
