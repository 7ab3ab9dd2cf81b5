"""Submits the jobs of a sweep to SLURM or to this machine, and waits for them. Needs the package submitit.

    dcrun -m hydra/launcher=slurm hydra.launcher.parameters.slurm_partition=gpu algorithm=asgd,dc_asgd_a seed=0,1,2

A submitted job runs the command of `sweeps.subprocess_launcher` and writes its own run folder, on a file system that
the machines share. submitit's scripts and logs are in `<sweep folder>/submitit/`. A job that SLURM preempts, or that
reaches its time limit, saves its state and is submitted again to continue from there.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from runner.config.errors import InputError
from runner.config.paths import quoted
from runner.run_folder import contents
from runner.run_folder.contents import has_checkpoints
from runner.sweeps.job import Job, PlannedJob, announce_job, report_failure
from runner.sweeps.subprocess_launcher import FreshProcessLauncher

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit.helpers import DelayedSubmission

CLUSTERS = ("slurm", "local")
_START = 3  # arguments before the overrides: python -m <program>
_WITHOUT_RESULT = 1


class Task:
    """Runs a command in a process of its own, on the other machine.

    The class is sent as code (see `_executor`), so it may use only small functions of the project that need no others.

    Args:
        command: the arguments of the process.
        folder: the run folder, from which the job continues when it is submitted again.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.command, self.folder = list(command), folder
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run the command and return its exit code."""
        # A process, not a call: submitit's own has other modules loaded, and a job must
        # be the run that a user would type.
        self.process = subprocess.Popen(self.command)
        try:
            return self.process.wait()
        except KeyboardInterrupt:
            # submitit cancels a job of this machine so; the process that it started must save its state.
            self._stop()
            raise

    def checkpoint(self) -> "DelayedSubmission":
        """Return how to continue; submitit calls this when the job is about to lose its machine."""
        # In functions, here and below: submitit is an optional package, and `register` runs without it.
        from submitit.helpers import DelayedSubmission

        self._stop()
        go_on = [*self.command[:_START], f"run.resume={quoted(str(self.folder))}"]
        # Before the first checkpoint there is nothing to go on from, so the job begins anew.
        return DelayedSubmission(Task(go_on if has_checkpoints(self.folder) else self.command, self.folder))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that is sent to the other machine, without the process."""
        return {"command": self.command, "folder": self.folder, "process": None}

    def _stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            # The checkpoint must be whole before the machine is given up.
            self.process.wait()


class SubmititLauncher(FreshProcessLauncher):
    """Hydra launcher that submits the jobs of `sweeps.subprocess_launcher`.

    Args:
        cluster: `slurm`, or `local` (processes of this machine).
        n_jobs: how many jobs run at a time.
        timeouts: how often a job that reached its time limit is submitted again.
        parameters: parameters of submitit's executor, as `timeout_min`, `cpus_per_task`, `slurm_partition`.
    """

    def __init__(self, cluster: str, n_jobs: int, timeouts: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(n_jobs)
        self.cluster, self.timeouts, self.parameters = cluster, timeouts, parameters
        self.submitted: list[Any] = []
        self.withdrawn = False

    def _run_all(self, planned: Sequence[PlannedJob | Job], total: int) -> list[Job]:
        assert self.config is not None
        folder = Path(str(self.config.hydra.sweep.dir)) / "submitit"
        executor = _executor(folder, self.cluster, self.timeouts, self.parameters, self.n_jobs)
        jobs: dict[int, Any] = {}
        queued = self.cluster == "slurm"
        # SLURM gets all jobs at once, as an array that limits how many run at a time. This machine has no queue: a job
        # is submitted here when one of the pool's threads is free.
        if queued:
            # A queue takes no job that is not settled.
            planned = [self._awaited(plan) for plan in planned]
        with executor.batch() if queued else nullcontext():
            for plan in self._announced(planned, total) if queued else ():
                jobs[plan.number] = executor.submit(Task(plan.command, plan.folder))
        self.submitted += jobs.values()

        def run(plan: PlannedJob | Job) -> Job | None:
            # A job that was submitted is waited for also after a stop: it saves, and its result counts.
            if self.over() and plan.number not in jobs:
                return None
            if not queued:
                plan = self._awaited(plan)
                announce_job(plan, total)
            if isinstance(plan, Job):
                return plan
            if plan.number not in jobs:
                jobs[plan.number] = executor.submit(Task(plan.command, plan.folder))
                self.submitted.append(jobs[plan.number])
            job = self._ended(plan, jobs[plan.number])
            if job is not None and not self.over():
                self._judge_first(job, total)
                if queued and FreshProcessLauncher.refused:
                    # The queue would start the others without asking us; those that run are cancelled too.
                    self.withdrawn = True
                    self._stop(signal.SIGTERM)
            return job

        # The threads only wait: for a queue that starts the jobs, one thread waits for each.
        with ThreadPoolExecutor(len(planned) if queued else self.n_jobs) as pool:
            return [job for job in pool.map(run, planned) if job is not None]

    @staticmethod
    def _announced(planned: Sequence[PlannedJob | Job], total: int) -> Iterator[PlannedJob]:
        for plan in planned:
            announce_job(plan, total)
            if isinstance(plan, PlannedJob):
                yield plan

    def _ended(self, plan: PlannedJob, submitted: Any) -> Job | None:
        """Wait for a job to end; return None if it was withdrawn because the experiment's first has wrong input."""
        from submitit.core.utils import FailedJobError, UncompletedJobError  # an optional package

        try:
            code = submitted.result()
        except (FailedJobError, UncompletedJobError) as exc:
            # Cancelled by us, so no failure to report; one that failed by itself before is.
            if self.withdrawn and not isinstance(exc, FailedJobError):
                return None
            code = _WITHOUT_RESULT
            print(
                f"dcrun: job {plan.number}: {_reason(exc)}; see {submitted.paths.stderr}", file=sys.stderr, flush=True
            )
        job = Job(plan.number, plan.overrides, plan.folder, code)
        report_failure(job)
        return job

    def _stop(self, number: int) -> None:
        for job in self.submitted:
            # Unchecked: a job that has ended meanwhile cannot be cancelled, and need not be.
            job.cancel(check=False)


def register() -> None:
    """Make the launcher known to Hydra; `conf/hydra/launcher/slurm.yaml` names it."""
    Plugins.instance().register(SubmititLauncher)


def check(config: DictConfig) -> None:
    """Refuse settings that submitit would refuse, before a sweep begins.

    Args:
        config: the configuration of a job, with Hydra's part; not checked unless it has this launcher.

    Raises:
        InputError: naming the key.
    """
    own = config.hydra.launcher
    if not str(own.get("_target_", "")).endswith(f".{SubmititLauncher.__name__}"):
        return
    if own.cluster not in CLUSTERS:
        raise InputError.of("hydra.launcher.cluster", own.cluster, "is not one of the choices", ", ".join(CLUSTERS))
    if not (isinstance(own.timeouts, int) and own.timeouts >= 0):
        raise InputError.of("hydra.launcher.timeouts", own.timeouts, "is not a number of repeats", "integers from 0")
    if own.cluster == "slurm" and shutil.which("srun") is None:
        chosen = config.hydra.runtime.choices.get("hydra/launcher")
        allowed = "on a machine that submits to SLURM, or hydra/launcher=submitit_local"
        raise InputError.of("hydra/launcher", chosen, "there is no srun on this machine", allowed)
    parameters: Any = OmegaConf.to_container(own.parameters, resolve=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            # Built only to see whether submitit takes the parameters; nothing is submitted.
            _executor(Path(folder), own.cluster, own.timeouts, parameters, own.n_jobs)
        except (AssertionError, NameError, TypeError, ValueError, RuntimeError) as exc:
            allowed = "what submitit.AutoExecutor.update_parameters takes"
            raise InputError(f"hydra.launcher.parameters: {_reason(exc)}; allowed: {allowed}") from exc


def _executor(folder: Path, cluster: str, timeouts: int, parameters: Mapping[str, Any], n_jobs: int) -> "AutoExecutor":
    import cloudpickle  # comes with submitit
    import submitit  # an optional package

    # Send these modules as code, not as names to import: the process that submitit starts for a job searches its
    # current folder first and does not know the folders of an installed dcrun.
    for module in (sys.modules[__name__], contents, sys.modules[quoted.__module__]):
        cloudpickle.register_pickle_by_value(module)
    # It bounds how often a job that ran out of time is submitted again; preemptions do not count.
    limits: Any = {f"{cluster}_max_num_timeout": timeouts}
    executor = submitit.AutoExecutor(folder, cluster, **limits)
    own = {"slurm_array_parallelism": n_jobs} if cluster == "slurm" else {}
    executor.update_parameters(name="dcrun", **{k: v for k, v in parameters.items() if v is not None}, **own)
    return executor


def _reason(exc: Exception) -> str:
    return next((line for line in str(exc).splitlines() if line.strip("- ")), type(exc).__name__)
