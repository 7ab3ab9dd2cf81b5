"""Builds runs from their configuration and executes them, on a simulated cluster or on real processes."""
