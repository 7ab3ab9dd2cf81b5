"""Sizes that every room counts with."""

FLOAT_BYTES = 4
"""Bytes of an element of weights, gradients and messages, which are float32 throughout."""
