"""One run, from its configuration to its summary, and what can be asked about it before: estimate, advice, schedule.

Who computes what, and when, is in `simulated` and `processes`.
"""
