"""From run folders to evidence: the command `dcreport`. It imports neither torch nor, but for `wandb_table`, wandb."""
