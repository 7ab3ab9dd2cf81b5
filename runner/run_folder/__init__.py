"""Every file of a run, written and read back: metrics, summary, checkpoints, trace, timeline; and its console lines.

Nothing here trains.
"""
