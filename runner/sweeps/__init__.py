"""Many runs, each in a process of its own: the cells of experiments, searches, launchers.

What a single run does is in `train`.
"""
