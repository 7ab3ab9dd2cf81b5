"""Sequential mini-batch SGD: synchronous SGD with one worker, which is `torch.optim.SGD` to the bit.

    w_{t+1} = w_t − η g(w_t)

The reference that every distributed method is measured against (Zheng et al., ICML 2017, table 1, first row).
"""

from __future__ import annotations

from typing import ClassVar

from algorithms.ssgd import SSGD


class SGD(SSGD):
    """Sequential SGD; the arguments are those of `SSGD`."""

    default_workers: ClassVar[int] = 1
    max_workers: ClassVar[int | None] = 1
