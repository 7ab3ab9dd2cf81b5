"""Every file that a run writes or reads back, and what it prints: metrics, summary, checkpoints, trace, timeline.

Nothing here trains.
"""
