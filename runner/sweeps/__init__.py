"""Many jobs, each in a process of its own: the cells of experiments, searches, launchers.

`train` says what a single run does.
"""
