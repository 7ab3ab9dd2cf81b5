"""From run folders to evidence, for the command `dcreport`. Nothing here imports torch; only `wandb_table` wandb."""
