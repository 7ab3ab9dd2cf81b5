"""Datasets: one file per source, every one of them held as tensors and answering `Split.batch(ids)`.

Imports nothing (decoding processes import this package and must not load torch).
"""


class DamagedImage(ValueError):
    """An image that is decoded as it is used turned out damaged, or could not be read, in the middle of a run."""
