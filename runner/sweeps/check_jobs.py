"""Checks all jobs of a sweep before the first one starts: what a job would refuse hours later is refused at once.

A job is composed and its keys are checked on the command line already. Here is checked what only the algorithm's class
and the data can tell, as whether the samples are enough for all workers. A process of its own does it, as it needs
torch and loads the data, which the sweep's process is to do without. It is forked from the same one as the jobs.
"""

from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.config.schema import GROUPS, without_hydra
from runner.sweeps.forked_job import warm


def check(jobs: Sequence[DictConfig]) -> None:
    """Refuse a sweep of which a job would be refused.

    Jobs that differ in the seed alone are one, and a single one is not checked: its first job says the same as soon.

    Args:
        jobs: the configurations, with Hydra's part.

    Raises:
        InputError: naming the first such job, and how many there are.
    """
    different: dict[str, DictConfig] = {}
    for job in jobs:
        # A replay takes its workers from its trace.
        if job.cluster.kind != "replay":
            different.setdefault(OmegaConf.to_yaml(_plain(job, seed=0)), job)
    checked = list(different.values())
    if len(checked) < 2:
        return
    context = warm()
    ours, theirs = context.Pipe(duplex=False)
    plain = [OmegaConf.to_container(_plain(job), resolve=True) for job in checked]
    process = context.Process(target=_check_all, args=(plain, theirs), daemon=True)
    process.start()
    # Only the child's end is left, so its death ends the wait.
    theirs.close()
    try:
        refused: dict[int, str] = ours.recv()
    except EOFError:
        # It was killed, for want of memory perhaps; the jobs will say what is wrong.
        return
    finally:
        process.kill()
        process.join()
    if refused:
        first = min(refused)
        overrides = [list(job.hydra.overrides.task) for job in checked]
        # What all jobs share does not tell which it is.
        label = " ".join(o for o in overrides[first] if any(o not in other for other in overrides))
        many = "" if len(refused) == 1 else f", and {len(refused) - 1} more of {len(checked)}"
        raise InputError(f"job {label}{many}: {refused[first]}")


def _plain(job: DictConfig, **changed: Any) -> DictConfig:
    """Return what a run sees of a job's configuration."""
    names = {group: job.hydra.runtime.choices.get(group) for group in GROUPS}
    cfg = OmegaConf.create(OmegaConf.to_container(without_hydra(job), resolve=True))
    return OmegaConf.merge(cfg, {"names": names}, changed)  # type: ignore[return-value]


def _check_all(plain: Sequence[Any], pipe: Connection) -> None:
    """Send the number and the message of each job that would be refused."""
    # Here, not above: it imports torch.
    from runner.train.build import check_run

    datasets: dict[str, Any] = {}
    refused = {}
    for number, content in enumerate(plain):
        cfg: Any = OmegaConf.create(content)
        try:
            check_run(cfg, datasets)
        except InputError as error:
            refused[number] = str(error)
    pipe.send(refused)
