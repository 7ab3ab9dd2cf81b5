"""From a typed line to a checked configuration and an exit code: `dcrun`, `dcreport` and `dcrun-fit` start here.

`train` says what a run does, `sweeps` what many runs do.
"""
