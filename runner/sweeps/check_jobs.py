"""Checks all jobs of a sweep before the first one starts: what a job would refuse hours later is refused at once.

A job is composed and its keys are checked on the command line already. Here is checked what only the algorithm's class
and the data can tell, as whether the samples are enough for all workers. A process of its own does it, as it needs
torch and loads the data, which the sweep's process is to do without. It is forked from the same one as the jobs.
"""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from runner.config.errors import InputError
from runner.sweeps.asked_process import ask, without_seed


def check(jobs: Sequence[DictConfig]) -> None:
    """Refuse a sweep of which a job would be refused.

    Jobs that differ in the seed alone are one, and a single one is not checked: its first job says the same as soon.

    Args:
        jobs: the configurations, with Hydra's part.

    Raises:
        InputError: naming the first such job, and how many there are.
    """
    # A replay takes its workers from its trace.
    checked = without_seed([job for job in jobs if job.cluster.kind != "replay"])
    refused = ask(_refused, checked) if len(checked) > 1 else None
    if refused:
        first = min(refused)
        overrides = [list(job.hydra.overrides.task) for job in checked]
        # What all jobs share does not tell which it is.
        label = " ".join(o for o in overrides[first] if any(o not in other for other in overrides))
        many = "" if len(refused) == 1 else f", and {len(refused) - 1} more of {len(checked)}"
        raise InputError(f"job {label}{many}: {refused[first]}")


def _refused(configs: Sequence[DictConfig]) -> dict[int, str]:
    """Return the number and the message of each job that would be refused."""
    # Here, not above: it imports torch.
    from runner.train.build import check_run

    datasets: dict[str, Any] = {}
    refused = {}
    for number, cfg in enumerate(configs):
        try:
            check_run(cfg, datasets)
        except InputError as error:
            refused[number] = str(error)
    return refused
