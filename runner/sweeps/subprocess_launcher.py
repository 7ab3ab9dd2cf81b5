"""Runs the jobs of a sweep, each in a process of its own: one after the other, or several at a time.

So nothing of one job (CUDA context, random generators, threads, a crash) reaches the next, and a job of a sweep gives
the same bits as the same run on its own. The process is fresh, or forked from one that has imported what all of them
need (`sweeps.forked_job`).

A job's configuration is composed here, from the sweep's, only to know its folder and its earlier run (`_plan`). The
process then composes it again from its command line: `runner.cli.compose` says why.
"""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from runner.config import resources, signals
from runner.config.exit_codes import WRONG_INPUT
from runner.config.installation import PROGRAM
from runner.config.old_names import OLD_NAMES
from runner.config.paths import quoted
from runner.config.resources import CORES
from runner.config.schema import GPU_SLOT, without_hydra
from runner.run_folder.folders import free_folder, is_locked
from runner.run_folder.live_status import VARIABLE, LiveStatus
from runner.run_folder.resume import EarlierRuns, may_accompany
from runner.run_folder.wandb_run import group_of
from runner.sweeps import forked_job
from runner.sweeps.forked_job import ForkedJob
from runner.sweeps.job import Job, PlannedJob, announce_job, report_failure
from runner.sweeps.job_notes import JobNotes
from runner.sweeps.lifeline import PIPE, Lifeline
from runner.sweeps.placement import AUTO, Jobs, place_here
from runner.sweeps.sweep_display import SweepDisplay

LOOK_SECONDS = 1.0
"""Seconds between two looks at a run that another process is writing."""
PLUGINS = (
    f"{__name__}.FreshProcessLauncher",
    "runner.sweeps.experiment_sweeper.ExperimentSweeper",
    "runner.sweeps.optuna_sweeper.OptunaSweeper",
    "runner.sweeps.submitit_launcher.SubmititLauncher",
)
_START = 3  # arguments of a job's command before its overrides: python -m <program>
# Overrides of Hydra that concern the sweep, not a job of it.
_OF_THE_SWEEP = ("hydra.mode", "hydra.run.", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra/sweeper")


class FreshProcessLauncher(Launcher):
    """Hydra launcher that runs `python -m <PROGRAM> <overrides> hydra.run.dir=<sweep folder>/<number>` for each job.

    Args:
        n_jobs: how many jobs run at a time; `auto` as many as the machine takes (`sweeps.placement`). If more than one,
            the output of each goes to `<sweep folder>/<number>.txt`.
        fork: whether jobs are forked from a warm process where they may be.
    """

    # At the class, since Hydra makes the instance and does not hand it out: the
    # command reads what became of the jobs here.
    jobs: ClassVar[list[Job]] = []
    stopped_by: ClassVar[int | None] = None
    sweep: ClassVar[Path | None] = None
    refused: ClassVar[bool] = False
    # What the command has composed and checked already, by the overrides of the job.
    composed: ClassVar[dict[tuple[str, ...], DictConfig]] = {}

    def __init__(self, n_jobs: Jobs = 1, fork: bool = False) -> None:
        self.fork = fork
        # Chosen when the jobs are known.
        self.n_jobs, self.chooses = (1, True) if n_jobs == AUTO else (n_jobs, False)
        # Shows the jobs while several run at a time.
        self.display: SweepDisplay | None = None
        # What each job may count as its own; None: all.
        self.cores_each: int | None = None
        self.expected = 0  # total number of jobs, if a sweeper launches them in several parts
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.processes: set[forked_job.Process] = set()
        # What jobs are forked from; None if each is a fresh process.
        self.warm: ForkServerContext | None = None
        # For `dcreport --watch`; made when the first jobs are known.
        self.notes: JobNotes | None = None
        self.slots: set[int] = set()
        # A search's: variables of each job by its overrides, and whether a run that is not at its end is over for it.
        self.variables: dict[tuple[str, ...], dict[str, str]] = {}
        self.is_over: Callable[[tuple[str, ...], Path], bool] = lambda overrides, folder: False
        self.choosing = threading.Lock()
        self.earlier: EarlierRuns | None = None
        # One for all jobs; it ends with this process, and must not end before.
        self.lifeline = Lifeline()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's context and configuration; the task function runs in the processes of the jobs."""
        self.config, self.hydra_context = config, hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs. If one fails, report it and run the others.

        Args:
            job_overrides: the overrides of each job.
            initial_job_idx: number of the first job.

        Returns:
            The exit code of each job as its return value. They are also kept in `FreshProcessLauncher.jobs`.
        """
        assert self.config is not None
        FreshProcessLauncher.sweep = Path(str(self.config.hydra.sweep.dir))
        total = max(self.expected, initial_job_idx + len(job_overrides))
        planned: list[PlannedJob | Job] = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            # All jobs are planned before the first one runs: what an earlier sweep left is looked up once.
            planned.append(self._plan(number, tuple(overrides)))
        self._place(planned)
        self.notes = self.notes or JobNotes(FreshProcessLauncher.sweep)
        self.notes.plan(planned)
        configs = [plan.config for plan in planned if isinstance(plan, PlannedJob) and plan.config is not None]
        forkable = [config for config in configs if forked_job.may_fork(config.run.device)]
        # A single job is as fast without. Of a search one may be all that is launched now, and others follow.
        if self.fork and forkable and total > 1:
            self.warm = forked_job.warm(forkable)
        with self._signals_forwarded():
            finished = self._run_all(planned, total)
        FreshProcessLauncher.jobs += finished
        self._note(finished)
        # COMPLETED for failed jobs too: of any other status Hydra would raise the value as soon as it reads it.
        return [JobReturn(overrides=j.overrides, status=JobStatus.COMPLETED, _return_value=j.code) for j in finished]

    def _plan(self, number: int, overrides: tuple[str, ...]) -> "PlannedJob | Job":
        """Return how to run a job: from its beginning or, with `run.resume=true`, from where an earlier run stopped."""
        config = self._job_config(number, overrides)
        assert self.config is not None
        folder = Path(str(self.config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        # Said anew below, as a folder or as null.
        own = [override for override in overrides if not override.startswith("run.resume=")]
        # Runs of this name are two folders up: the sweep has a folder of its own, and so does each job.
        outputs, behind = folder.parent.parent, None
        if config.run.resume and (found := self._earlier(outputs).of(without_hydra(config))):
            folder, finished = found
            if finished or self.is_over(overrides, folder):
                return Job(number, overrides, folder, 0)
            arguments = [f"run.resume={quoted(str(folder))}", *(o for o in own if may_accompany(o.partition("=")[0]))]
        else:
            # What the user typed of Hydra's keys, as a search path, holds for every job. As typed: an interpolation is
            # the job's to resolve.
            typed: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
            common = [o for o in typed if not o.lstrip("+~").startswith(_OF_THE_SWEEP)]
            if config.run.resume:
                behind = self._earlier(outputs).running(without_hydra(config))
                folder = free_folder(folder)  # the folder of a failed job stays as it is
            # An experiment's file sets hydra.mode=MULTIRUN and run.resume=true, but a job is a single new run.
            own += ["hydra.mode=RUN", "run.resume=null", f"hydra.run.dir={quoted(str(folder))}"]
            arguments = [*common, *self._wandb_group(own), *own]
        command = (sys.executable, "-m", PROGRAM, *arguments)
        return PlannedJob(number, overrides, folder, command, behind, config)

    def _place(self, planned: Sequence["PlannedJob | Job"]) -> None:
        """Choose how many jobs run at a time if that is asked for, and share the cores out among them."""
        configs = [plan.config for plan in planned if isinstance(plan, PlannedJob) and plan.config is not None]
        if self.chooses and configs:
            chosen = place_here(configs)
            self.n_jobs = chosen.jobs
            print(f"dcrun: {chosen.told}", flush=True)
        if self.n_jobs > 1 and configs:
            # Whatever a job takes for itself is taken from those beside it.
            self.cores_each = max(1, resources.cores() // min(self.n_jobs, len(configs)))

    def _awaited(self, plan: "PlannedJob | Job") -> "PlannedJob | Job":
        """Wait for an equal run of another process, and return how to run the job then."""
        while isinstance(plan, PlannedJob) and plan.behind is not None and not self.over():
            told = (
                f"job {plan.number}: {plan.behind} has an equal run, which another process is writing; waiting for it"
            )
            print(f"dcrun: {told}", file=sys.stderr, flush=True)
            while is_locked(plan.behind) and not self.over():
                time.sleep(LOOK_SECONDS)
            # Planning sets Hydra's one configuration, so one thread at a time.
            with self.choosing:
                self.earlier = None
                plan = self._plan(plan.number, plan.overrides)
        return plan

    def _run_all(self, planned: Sequence["PlannedJob | Job"], total: int) -> list[Job]:
        """Run jobs to their end; return those that had started before the sweep was stopped."""
        with ExitStack() as stack:
            # One job at a time shows itself.
            if self.n_jobs > 1:
                self.display = stack.enter_context(SweepDisplay(planned, self.n_jobs))
                stack.callback(setattr, self, "display", None)
            # The threads wait for processes; `map` returns the jobs in the order of their numbers.
            pool = stack.enter_context(ThreadPoolExecutor(self.n_jobs))
            return [job for job in pool.map(lambda plan: self._run(plan, total), planned) if job is not None]

    def _stop(self, number: int) -> None:
        """Pass a signal on to the running jobs."""
        # A copy: a signal handler runs between any two lines, and the threads add and remove meanwhile.
        for process in list(self.processes):
            # Ctrl-C goes to all processes of a job, as from a terminal: who spawns ranks counts on their getting it
            # themselves, and passes other signals on.
            forked_job.send(process, number)

    def _run(self, plan: "PlannedJob | Job", total: int) -> Job | None:
        """Run a job to its end; return None if the sweep was stopped before."""
        # Asked by each thread before its job: a stopped sweep lets running jobs save and starts no other.
        plan = self._awaited(plan)
        if self.over():
            return None
        if self.display is None or not self.display.live:
            announce_job(plan, total)
        if isinstance(plan, Job):
            self._show_end(plan)
            return plan
        output = plan.folder.with_name(f"{plan.number}.txt") if self.n_jobs > 1 else None
        with ExitStack() as stack:
            told = None
            # Lines of several jobs on one terminal would be mixed.
            if output is not None:
                output.parent.mkdir(parents=True, exist_ok=True)
                told = stack.enter_context(open(output, "wb"))
            # Jobs that run at the same time get different numbers, the smallest free ones: a job on GPU (number modulo
            # GPUs) so spreads them evenly. The lock keeps two threads from taking the same number.
            with self.choosing:
                slot = next(number for number in itertools.count() if number not in self.slots)
                self.slots.add(slot)
            stack.callback(self.slots.discard, slot)
            passed = {PIPE: self.lifeline.end}
            if self.display is not None:
                status = stack.enter_context(closing(LiveStatus()))
                passed[VARIABLE] = status.end
                self.display.begin(plan, status)
            self._note([plan])
            process = self._start(plan, self._environment(slot) | self.variables.get(plan.overrides, {}), told, passed)
            self.processes.add(process)
            job = Job(plan.number, plan.overrides, plan.folder, process.wait())
            self.processes.discard(process)
            self._note([job])
            self._show_end(job)
        report_failure(job, output)
        self._judge_first(job, total)
        return job

    def _note(self, jobs: Sequence["PlannedJob | Job"]) -> None:
        if self.notes is not None:
            self.notes.note(jobs)

    def _show_end(self, job: Job) -> None:
        if self.display is not None:
            self.display.end(job)

    def _environment(self, slot: int) -> dict[str, str]:
        own = {} if self.cores_each is None else {CORES: str(self.cores_each)}
        # A job that runs alone has all GPUs.
        if self.n_jobs > 1:
            own[GPU_SLOT] = str(slot)
        return {**os.environ, **own}

    def _start(
        self, plan: PlannedJob, environment: Mapping[str, str], told: BinaryIO | None, passed: Mapping[str, int]
    ) -> forked_job.Process:
        """Start a job.

        Args:
            plan: the job.
            environment: its variables.
            told: takes what it prints; None leaves that to the terminal.
            passed: descriptors that it gets, by the variables that tell it their numbers.
        """
        # The job has a session of its own, forked or not. A Ctrl-C in the terminal would reach the job directly and,
        # forwarded by us, a second time, and a second Ctrl-C ends a run without saving. So it reaches the job once,
        # through us.
        if self.warm is not None and forked_job.may_fork(plan.device):
            with suppress(OSError):
                return ForkedJob(
                    self.warm,
                    plan.command[_START:],
                    environment,
                    output=None if told is None else told.fileno(),
                    passed=passed,
                    serves=plan.starts_processes,
                )
        return subprocess.Popen(
            plan.command,
            start_new_session=True,
            stdout=told,
            stderr=told,
            env={**environment, **{name: str(number) for name, number in passed.items()}},
            pass_fds=list(passed.values()),
        )

    @classmethod
    def over(cls) -> bool:
        """Return whether no further job may start."""
        return cls.stopped_by is not None or cls.refused

    def _judge_first(self, job: Job, total: int) -> None:
        """Stop an experiment whose first job has wrong input, as the wrong data set: the others have it too."""
        # Exit code 2 alone: a crash of the first job says nothing about the others.
        if job.number != 0 or job.code != WRONG_INPUT or total == 1:
            return
        assert self.config is not None
        if self.config.hydra.sweeper.get("cells"):
            FreshProcessLauncher.refused = True
            others = "the first job of the experiment has wrong input, so no further job is started"
            print(f"dcrun: {others}", file=sys.stderr, flush=True)

    def _earlier(self, outputs: Path) -> EarlierRuns:
        if self.earlier is None:
            # Read once: a sweep asks for every job, and below `outputs` there may be thousands of runs.
            self.earlier = EarlierRuns(outputs)
        return self.earlier

    @contextmanager
    def _signals_forwarded(self) -> Iterator[None]:
        """Forward a request to stop to the running jobs, which save their state; the sweep ends when they have."""

        def forward(number: int, frame: FrameType | None) -> None:
            # The first signal is the exit code; the jobs get all of them, and take a warning and the SIGTERM after it
            # for one request.
            if FreshProcessLauncher.stopped_by is None:
                FreshProcessLauncher.stopped_by = number
                signals.note(number)
            self._stop(number)

        with signals.handling(dict.fromkeys([signal.SIGINT, *signals.heeded()], forward)):
            yield

    def _job_config(self, number: int, overrides: Sequence[str]) -> DictConfig:
        assert self.config is not None
        assert self.hydra_context is not None
        job = self.composed.get(tuple(overrides))
        if job is None:
            # Of an experiment and of a search the command composes some jobs only.
            job = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with read_write(job), read_write(job.hydra), open_dict(job):
            job.hydra.job.id = str(number)
            job.hydra.job.num = number
            job.hydra.sweep.dir = self.config.hydra.sweep.dir
        # The folder's name is an interpolation of Hydra's part, which is resolved through this singleton.
        HydraConfig.instance().set_config(job)
        return job

    def _wandb_group(self, overrides: Sequence[str]) -> list[str]:
        """Return the override of one wandb group for all jobs, or nothing if the user named a group."""
        assert self.config is not None
        if any(o.startswith("logger.group=") for o in overrides):
            return []
        return [f"logger.group={quoted(group_of(self.config, Path(str(self.config.hydra.sweep.dir))))}"]


def warm_up(jobs: Sequence[DictConfig]) -> None:
    """Start what jobs are forked from, if they are: it imports PyTorch while Hydra composes the sweep.

    Args:
        jobs: the configurations of jobs, with Hydra's part.
    """
    own = jobs[0].hydra.launcher
    if not str(own.get("_target_", "")).endswith(f".{FreshProcessLauncher.__name__}") or not own.get("fork"):
        return
    if len(jobs) > 1 and any(forked_job.may_fork(job.run.device) for job in jobs):
        forked_job.warm(jobs)


def register() -> None:
    """Make the launcher known to Hydra; `conf/hydra/launcher/fresh_process.yaml` names it."""
    plugins = Plugins.instance()
    plugins.register(FreshProcessLauncher)
    # Hydra instantiates only plugins in a package `hydra_plugins`; this project's are allowed from where they are.
    known = Plugins.is_in_toplevel_plugins_module
    plugins.is_in_toplevel_plugins_module = lambda clazz: OLD_NAMES.get(clazz, clazz) in PLUGINS or known(clazz)


def register_old_names() -> None:
    """Register launchers and sweepers with Hydra under their old names too; call this when all are registered."""
    known = Plugins.instance().class_name_to_class
    # A recorded sweep names its launcher by the class path of its time.
    known.update({old: known[new] for old, new in OLD_NAMES.items() if new in known})
