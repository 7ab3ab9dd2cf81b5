"""Loads the data of a sweep's jobs into the process that they are forked from, so that they share its memory.

A fork server can be told nothing but what to import, so this module loads when the server imports it.
"""

import multiprocessing
import os
from contextlib import suppress

import torch
from omegaconf import OmegaConf

from runner.sweeps.forked_job import DATA
from runner.train import datasets


def load(text: str) -> None:
    """Load and keep the data set of a configuration, as YAML; nothing if it cannot be loaded: jobs will say why."""
    threads = torch.get_num_threads()
    own = multiprocessing.process.current_process()._config  # type: ignore[attr-defined]
    # No threads, and no processes to decode images: a job that is forked from a process with threads may hang.
    torch.set_num_threads(1)
    own["daemon"] = True
    try:
        with suppress(Exception):
            datasets.keep(OmegaConf.create(text))
    finally:
        own.pop("daemon")
        torch.set_num_threads(threads)


if given := os.environ.pop(DATA, None):
    load(given)
