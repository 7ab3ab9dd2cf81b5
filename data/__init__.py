"""Datasets: one file per source, every one of them held as tensors and answering `Split.batch(ids)`.

Imports nothing (decoding processes import this package and must not load torch).
"""
