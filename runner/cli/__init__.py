"""From a typed line to a checked configuration and an exit code: here `dcrun` and the commands beside it start.

`train` says what a run does, `sweeps` what many runs do.
"""
