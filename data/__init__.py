"""Datasets: one file per source, every one of them held as tensors and answering `Split.batch(ids)`.

Imports nothing (decoding processes import this package and must not load torch).
"""


class DamagedImage(ValueError):
    """Raised in the middle of a run when an image that is decoded as it is used is damaged or cannot be read."""
