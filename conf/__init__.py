"""Hydra configuration groups of dcrun: one folder per group, one file per option."""
