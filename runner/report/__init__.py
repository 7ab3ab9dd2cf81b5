"""From run folders to evidence: the command `dcreport`. It imports neither torch nor wandb."""
