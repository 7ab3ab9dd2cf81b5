"""Distributed optimisation methods, one per file; `algorithms.base` has the protocols they speak."""
