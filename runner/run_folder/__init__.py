"""Writes and reads every file of a run, and prints its lines: metrics, summary, checkpoints, trace, timeline.

Nothing here trains.
"""
