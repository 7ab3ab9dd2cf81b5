import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from runner.cli import main
from runner.cli.compose import composer, swept_along
from runner.config import schema
from runner.sweeps import experiment_sweeper, subprocess_launcher
from runner.sweeps.job import Job, PlannedJob
from runner.sweeps.subprocess_launcher import FreshProcessLauncher


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[PlannedJob]:
    """Runs nothing, in an empty folder, and records the jobs that a sweep would have started."""
    record: list[PlannedJob] = []

    def run_all(self: FreshProcessLauncher, plans: Sequence[PlannedJob], total: int) -> list[Job]:
        record.extend(plans)
        return [Job(plan.number, plan.overrides, plan.folder, 0) for plan in plans]

    monkeypatch.setattr(FreshProcessLauncher, "_run_all", run_all)
    # The folders that these command lines name hold no data.
    monkeypatch.setattr(main.check_jobs, "check", lambda jobs: None)
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
    return record


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        (["algorithm=dasgd,local_sgd", "model=linear"], "algorithm.tau=4"),
        pytest.param(["algorithm=dasgd,local_sgd", "model=linear"], "++algorithm.tau=4", marks=pytest.mark.slow),
        pytest.param(["dataset=cifar10,cifar100"], "dataset.root=/", marks=pytest.mark.slow),
    ],
)
def test_keys_of_swept_options_can_be_given(planned: list[PlannedJob], typed: list[str], key: str):
    assert main.main(["-m", *typed, key, "run.resume=null"]) == 0
    assert len(planned) == 2
    assert all(key in job.overrides and key in job.command for job in planned)
    assert all("choice" not in word for job in planned for word in job.command)


def test_search_takes_keys_of_swept_options(planned: list[PlannedJob]):
    pytest.importorskip("optuna", reason='pip install -e ".[optuna]"')
    assert main.main(["hydra/sweeper=optuna", "algorithm=dasgd,local_sgd", "algorithm.tau=4"]) == 0
    found = sorted(job.overrides for job in planned)
    assert found == [("algorithm.tau=4", "algorithm=dasgd"), ("algorithm.tau=4", "algorithm=local_sgd")]


def test_key_of_one_swept_option_is_refused(planned: list[PlannedJob], capfd: pytest.CaptureFixture[str]):
    for wrong in ("algorithm.tau=4", "~algorithm.tau"):
        assert main.main(["-m", "algorithm=dasgd,asgd", wrong]) == 2
        err = capfd.readouterr().err
        assert err.startswith("dcrun: ")
        assert err.count("\n") == 1
    for unknown in ("~algorithm.tau", "algorithm.tau=null"):
        assert main.main(["-m", "algorithm=dasgd,local_sgd", unknown]) == 2
        assert capfd.readouterr().err.count("\n") == 1
    assert planned == []


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("algorithm.tau=4", "algorithm.tau=choice(4)"),
        ("+algorithm.tau=4", "+algorithm.tau=choice(4)"),
        ("algorithm.tau=1,2", "algorithm.tau=1,2"),
        ("algorithm.tau=", "algorithm.tau=choice('')"),
        ("algorithm.tau=null", "algorithm.tau=null"),  # Hydra cannot choose it
        ("algorithm.tau='a, b'", "algorithm.tau=choice('a, b')"),
        ("algorithm.tau='4'", "algorithm.tau='4'"),  # Hydra would make it a number
        ("algorithm.tau=[1,{a:2}]", "algorithm.tau=choice([1,{a:2}])"),
        ("algorithm.tau=${seed}", "algorithm.tau=choice(${seed})"),
        ("algorithm.tau=interval(1,2)", "algorithm.tau=interval(1,2)"),
        ("~algorithm.tau", "~algorithm.tau"),
        ("dataset.root=/a", "dataset.root=/a"),
    ],
)
def test_keys_of_a_swept_group_become_choices(typed: str, written: str):
    assert swept_along(["algorithm=dasgd,asgd", typed]) == ["algorithm=dasgd,asgd", written]
    assert swept_along(["algorithm=dasgd", typed]) == ["algorithm=dasgd", typed]


def test_experiment_may_choose_any_group():
    typed = ["dataset.root=/a", "algorithm.tau=4", "run.epochs=1"]
    assert swept_along(["experiment=a,b", *typed])[1:] == [
        "dataset.root=choice(/a)",
        "algorithm.tau=choice(4)",
        typed[2],
    ]


EXPERIMENTS = [
    (
        ["experiment=dc_asgd_icml2017/published"],
        "experiment=dc_asgd_icml2017/published: holds data of experiments and is not an experiment; allowed: dc_asgd",
    ),
    (
        ["-m", "experiment=dasgd_iclr2022/table1,dasgd_iclr2022/figure3", "dataset.root=a"],
        "experiment=dasgd_iclr2022/table1,dasgd_iclr2022/figure3: dasgd_iclr2022/table1 is itself a sweep; allow",
    ),
    (
        ["algorithm=[sgd,asgd]"],
        "algorithm=[sgd,asgd]: gives several options at once; allowed: one option, or a sweep: ",
    ),
    (["logger=[none,csv]"], "logger=[none,csv]: none stands alone; allowed: logger=none, or a list without it"),
    (["logger=[]"], "logger=[]: names no logger; allowed: logger=none, or names in the list"),
    (["logger=[csv,wandb,csv]"], "logger=[csv,wandb,csv]: names a logger twice; allowed: logger=[csv,wandb]"),
    (["seeds=3"], "seeds=3: would do nothing; allowed: with experiment=..., or -m seed=0,1,2"),
    (["-m", "scale=quick,paper"], "scale=quick,paper: would do nothing; allowed: with experiment=..."),
    (["experiment=null", "scale=paper"], "scale=paper: would do nothing; allowed: with experiment=..."),
    (
        ["experiment=huo_thesis2020/figure11", "scale=quick,paper"],
        "scale=quick,paper: gives several values; allowed: on",
    ),
    (
        ["experiment=huo_thesis2020/figure11", "hydra.mode=RUN", "run.resume=null", "seeds=3"],
        "seeds=3: would do nothing; ",
    ),
    (["experiment=huo_thesis2020/figure11", "seeds=1,2"], "seeds=1,2: gives several values; allowed: how many, as "),
    (
        ["hydra/sweeper=optuna", "schedule.lr=0.1,0.2", "hydra.sweeper.seed=abc"],
        "hydra.sweeper.seed=abc: is not a seed",
    ),
]


@pytest.mark.parametrize(("typed", "line"), EXPERIMENTS, ids=[" ".join(typed) for typed, _ in EXPERIMENTS])
def test_keys_outside_experiments_are_refused(
    planned: list[PlannedJob], tmp_path: Path, capfd: pytest.CaptureFixture[str], typed: list[str], line: str
):
    assert main.main(typed) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"dcrun: {line}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_single_job_names_its_scale(planned: list[PlannedJob]):
    schema.register()
    subprocess_launcher.register()
    experiment_sweeper.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", replace=True)
    with composer() as compose:
        own = ["scale=quick", "seeds=null", "hydra.mode=RUN"]
        [cfg] = compose.jobs(["experiment=huo_thesis2020/figure11", *own], multirun=False)
        assert cfg.scale == "quick"


MISSING = [
    (
        ["dataset=cifar10", "dataset.root=gone"],
        "dataset.root=gone: the data set is not there: gone does not exist; allowed:",
    ),
    (["dataset=libsvm"], "dataset.root=null: the data set is not there: data-sets does not exist; allowed: where"),
    (["-m", "dataset=mnist,digits"], "dataset.root=null: the data set is not there: "),
    (
        ["dataset=mnist", f"dataset.root={300 * 'x'}"],
        f"dataset.root={300 * 'x'}: the data set cannot be looked for: File ",
    ),
    (
        ["dataset=mnist", "dataset.root='~nobody-here/x'"],
        "dataset.root=~nobody-here/x: the data set cannot be looked for",
    ),
]


@pytest.mark.parametrize(("typed", "line"), MISSING, ids=["missing", "null", "sweep", "long", "home of nobody"])
def test_missing_data_are_noticed_before_torch(
    planned: list[PlannedJob],
    typed: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    # What imports torch and runs the training: it must not even be looked for.
    monkeypatch.setitem(sys.modules, "runner.train.dispatch", None)
    assert main.main(typed) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"dcrun: {line}")
    assert err.count("\n") == 1
    assert (planned, list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize(
    "typed",
    [["dataset.root=."], ["dataset.url=file:///mnt/x"], ["dataset.download=true"], ["run.plot_schedule=a.png"]],
    ids=["there", "mirror", "download", "picture"],
)
def test_data_that_may_come_are_not_missed(
    planned: list[PlannedJob], typed: list[str], monkeypatch: pytest.MonkeyPatch
):
    module, ran = ModuleType("runner.train.dispatch"), []
    module.dispatch = lambda cfg, folder: ran.append(cfg) or 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "runner.train.dispatch", module)
    assert main.main(["dataset=mnist", *typed]) == 0
    assert len(ran) == 1
    assert main.main(["dataset=cifar10", "--cfg", "job"]) == 0


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("defaults: [net]", "an option's defaults lead back to itself, or it is nested too deep; allowed: "),
        ("defaults: [broken]", "found character '\\t' that cannot start any token"),
        ("defaults: [absent]", "model=absent: no such option; allowed: "),
        ("_target_: ${nowhere}", "Interpolation key 'nowhere' not found"),
        ("_target_: ${model._target_}", "Recursive interpolation detected"),
        ("_target_: ${oc.env:NO_SUCH_VARIABLE}", "Environment variable 'NO_SUCH_VARIABLE' not found"),
        ("- a", "model=net: is not a configuration: its file holds a list; allowed: "),
    ],
    ids=["circle", "broken", "absent", "interpolation", "recursion", "variable", "list"],
)
def test_hostile_option_is_one_line(
    planned: list[PlannedJob], content: str, wrong: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "net.yaml").write_text(f"{content}\n")
    (tmp_path / "mine" / "model" / "broken.yaml").write_text("a: 1\n\tb: 2\n")
    assert main.main(["--config-dir", str(tmp_path / "mine"), "model=net"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("dcrun: ")
    assert wrong in err
    assert err.count("\n") == 1


def test_folder_of_options_that_is_missing_is_refused(planned: list[PlannedJob], capfd: pytest.CaptureFixture[str]):
    assert main.main(["hydra.searchpath=[/nowhere]"]) == 2
    line = "dcrun: hydra.searchpath=/nowhere: no such folder; allowed: folders with <group>/<option>.yaml\n"
    assert capfd.readouterr().err == line
