"""From a typed line to a checked configuration and an exit code: `dcrun`, `dcreport` and `dcrun-fit` start here.

What a run does is not here but in `train`, what many runs do in `sweeps`.
"""
