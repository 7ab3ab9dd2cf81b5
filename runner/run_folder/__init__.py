"""Every file of a run, written and read back, and its lines on the console: metrics, summary, checkpoints, trace, timeline.

Nothing here trains.
"""
