"""Everything that executes: from a command line to a run on simulated workers or processes, and to its report."""
