import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from runner.cli import main
from runner.cli.compose import CONF, composer
from tests.runner.cli.conftest import Executed

WRONG = [
    (["run.epoch=3"], "run.epoch=3: unknown key; nearest: run.epochs"),
    (["lr=1"], "lr=1: unknown key; nearest: schedule.lr"),
    (["workers=4"], "workers=4: unknown key; nearest: cluster.workers"),
    (["algorithm.lamda0=1"], "algorithm.lamda0=1: unknown key; nearest: algorithm.lambda0"),
    (["algoritm=asgd"], "algoritm=asgd: unknown key; nearest: algorithm"),
    (
        ["algorithm=shared_asysvrg", "algorithm.sgd_beta=1"],
        "algorithm.sgd_beta=1: unknown key; it is called algorithm.sgd_decay now",
    ),
    (["+run.epoch=3"], "run.epoch=3: unknown key; nearest: run.epochs"),
    (["++zzz=3"], "zzz=3: unknown key; dcrun --help"),
    (
        ["hydra.sweeper.pruner=median"],
        "hydra.sweeper.pruner=median: is a key of a search, and this is none; allowed: with hydra/sweeper=optuna",
    ),
    (["hydra.runn.dir=x"], "hydra.runn.dir=x: unknown key; nearest: hydra.run.dir"),
    (["algorithm=dcasgd_c"], "algorithm=dcasgd_c: no such option; allowed: dc_asgd_c, "),
    (["experiment=nothing"], "experiment=nothing: no such option"),
    (["algorithm="], "algorithm=: no such option"),
    (["algorithm=null"], "algorithm=null: is not an option of this group; allowed: ad_psgd, "),
    (["~model"], "model=null: is not a configuration"),
    (["algorithm=sgd,asgd"], "algorithm=sgd,asgd: gives several values"),
    (["run"], "run: is not an override; write key=value"),
    (["=3"], "=3: is not an override"),
    (["run.epochs==3"], "run.epochs==3: cannot be read as key=value; quote"),
    (["run.name=[a"], "run.name=[a: cannot be read"),
    (["run.batch_size=many"], "run.batch_size=many: is not an integer"),
    (["run.batch_size=1.5"], "run.batch_size=1.5: is not an integer"),
    (["run.batch_size="], "run.batch_size=: needs a value"),
    (["run.compile=perhaps"], "run.compile=perhaps: is neither true nor false"),
    (["seed=null"], "seed=null: needs a value"),
    (["run.name=???"], "run.name=???: needs a value"),
    (["run.name=${nowhere}"], "run.name: Interpolation key 'nowhere' not found"),
    (["run=3"], "run=3: is a section"),
    (["cluster.compute.speeds=3"], "cluster.compute.speeds=3: is not a list"),
    (["~run.epochs"], "~run.epochs: cannot be removed"),
    (["run.batch_size=0"], "run.batch_size=0: is too small; allowed: integers from 1"),
    (["run.epochs=-1"], "run.epochs=-1: is out of range"),
    (["cluster.workers=0"], "cluster.workers=0: is too small"),
    (["run.resume=nowhere"], "run.resume=nowhere: no such folder"),
    (["run.resume=."], "run.resume=.: is not a run folder"),
    (["run.resume=true"], "run.resume=true: does not name a run"),
    (["hydra.run.dir=/proc/no/such"], "hydra.run.dir=/proc/no/such: cannot be written"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
    (["--cfg", "everything"], "argument --cfg/-c: invalid choice"),
    (["--cfg", "job", "--info"], "only one of --run, --multirun, --cfg"),
    (["--config-name", "other"], "--config-name: dcrun has its own configuration"),
    (["--config-dir", "nowhere"], "--config-dir=nowhere: no such folder"),
    (["--cfg", "job", "run.epoch=3"], "run.epoch=3: unknown key"),
    (["-m", "algorithm=asgd,adsgd"], "algorithm=adsgd: no such option; allowed: asgd"),
    (["-m", "run.epochs=1,-1"], "run.epochs=-1: is out of range"),
    (["-m", "run.resume=outputs/a"], "run.resume=outputs/a: a sweep is not a single run"),
    (["-m", "hydra.sweep.dir=/proc/no/such", "seed=0,1"], "hydra.sweep.dir=/proc/no/such: cannot be written"),
]


@pytest.mark.parametrize(("arguments", "line"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_mistake_is_one_line_without_folder(
    arguments: list[str], line: str, executed: Executed, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert main.main(arguments) == 2
    out, err = capfd.readouterr()
    assert err.startswith(f"dcrun: {line}")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert out == ""
    assert list(tmp_path.iterdir()) == []
    assert executed == []


def test_nearest_option_comes_first_and_all_are_named(executed: Executed, capsys: pytest.CaptureFixture[str]):
    main.main(["algorithm=ssgdd"])
    err = capsys.readouterr().err
    assert "allowed: ssgd, sgd, " in err
    for option in (CONF / "algorithm").glob("*.yaml"):
        assert option.stem in err


def test_full_error_shows_the_traceback(
    executed: Executed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert main.main(["run.epoch=3"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ConfigCompositionException" in err


def test_help_names_groups_and_exit_codes(executed: Executed, capsys: pytest.CaptureFixture[str]):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    for group in ("algorithm", "model", "dataset", "cluster", "schedule", "logger"):
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        assert f"{group}: {', '.join(options)}  (here: " in out
    for text in ("run.epochs=3", "run.resume=", "install=bash", "2 wrong input", "HYDRA_FULL_ERROR", "dcrun -m "):
        assert text in out
    assert "$" not in out.replace('"$(dcrun', "")


@pytest.mark.slow
def test_overrides_in_the_help_compose(executed: Executed, capsys: pytest.CaptureFixture[str]):
    main.main(["--help"])
    text = capsys.readouterr().out.partition("== Common overrides ==")[2].partition("==")[0]
    overrides = [line.split()[0].rstrip(";") for line in text.splitlines() if line]
    assert len(overrides) > 15
    with composer() as compose:
        for override in set(overrides) - {"dataset.root=/path", "run.evaluate_only=true"}:
            compose.one([override])
        compose.one(["run.evaluate_only=true", "model.weights=outputs/a"])


def test_cfg_job_prints_the_configuration(executed: Executed, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main.main(["--cfg", "job", "algorithm=asgd", "run.epochs=3"]) == 0
    cfg = OmegaConf.create(capsys.readouterr().out)
    assert cfg.run.epochs == 3
    assert cfg.algorithm._target_.startswith("algorithms.asgd.")
    assert "hydra" not in cfg
    assert list(tmp_path.iterdir()) == []


def test_shell_completion_offers_options(
    executed: Executed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COMP_LINE", "dcrun algorithm=dc_")
    assert main.main(["--shell-completion", "query=bash"]) == 0
    assert "algorithm=dc_asgd_a" in capsys.readouterr().out.split()


def test_help_config_and_mistakes_do_without_torch():
    code = (
        "import sys; from runner.cli import main as cli; "
        "lines = (['--help'], ['--version'], ['--cfg', 'job'], ['run.epoch=3'], ['run.epochs=0']); "
        "codes = [cli.main(line) for line in lines]; "
        "print(codes, 'torch' in sys.modules, 'wandb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[0, 0, 0, 2, 2] False False\n")


@pytest.mark.parametrize("code", [0, 3, 130, 143])
def test_run_gets_its_folder_and_exit_code(code: int, executed: Executed, tmp_path: Path):
    executed.behave = lambda cfg, folder: code
    assert main.main(["algorithm=asgd", "run.name=a/b", "seed=7"]) == code
    [(cfg, folder)] = executed
    assert folder is not None
    assert folder.parent == tmp_path / "outputs" / "a" / "b"
    assert (cfg.seed, cfg.names.algorithm, cfg.names.cluster, cfg.names.experiment) == (7, "asgd", "simulated", None)
    assert OmegaConf.load(folder / ".hydra" / "config.yaml").seed == 7
    assert (folder / "dcrun.log").exists()


def test_no_experiment_can_be_said(executed: Executed):
    assert main.main(["experiment=null", "scale=null", "seeds=null", "algorithm=asgd"]) == 0
    [(cfg, _)] = executed
    assert (cfg.names.experiment, cfg.scale, cfg.names.algorithm) == (None, None, "asgd")


def test_runs_of_one_second_have_two_folders(executed: Executed):
    main.main([])
    main.main([])
    assert executed[0][1] != executed[1][1]


def test_value_error_of_a_target_is_wrong_input(executed: Executed, capfd: pytest.CaptureFixture[str]):
    def refuse(cfg: object, folder: Path | None) -> int:
        raise InstantiationException("Error in call to target") from ValueError("algorithm.m=2: too large")

    executed.behave = refuse
    assert main.main([]) == 2
    assert capfd.readouterr().err == "dcrun: algorithm.m=2: too large\n"


def test_unexpected_error_logs_its_traceback(executed: Executed, capfd: pytest.CaptureFixture[str]):
    def fail(cfg: object, folder: Path | None) -> int:
        raise ValueError("out of\nluck")

    executed.behave = fail
    assert main.main(["hydra.run.dir=outputs/a"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("dcrun: ValueError: out of; luck (traceback in ")
    assert err.count("\n") == 1
    assert "Traceback (most recent call last)" in Path("outputs/a/dcrun.log").read_text()


def test_resume_uses_the_stored_configuration(executed: Executed):
    main.main(["algorithm=asgd", "seed=3", "run.epochs=4", "hydra.run.dir=outputs/a"])
    stored = {path: path.read_bytes() for path in Path("outputs/a/.hydra").iterdir()}
    assert main.main(["run.resume=outputs/a", "run.threads=1", "logger=none"]) == 0
    cfg, folder = executed[1]
    assert folder == Path("outputs/a")
    assert (cfg.seed, cfg.run.epochs, cfg.names.algorithm) == (3, 4, "asgd")
    assert (cfg.run.resume, cfg.run.threads, cfg.logger.kind) == ("outputs/a", 1, "none")
    assert {path: path.read_bytes() for path in Path("outputs/a/.hydra").iterdir()} == stored
    assert [path.name for path in Path("outputs").iterdir()] == ["a"]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "hydra.run.dir=outputs/b",
        pytest.param("algorithm=asgd", marks=pytest.mark.slow),
        pytest.param("run.eval_every=9", marks=pytest.mark.slow),
    ],
)
def test_resume_refuses_what_would_make_it_another_run(
    override: str, executed: Executed, capfd: pytest.CaptureFixture[str]
):
    main.main(["hydra.run.dir=outputs/a"])
    assert main.main(["run.resume=outputs/a", override]) == 2
    assert capfd.readouterr().err.startswith(f"dcrun: {override}: cannot change when a run is continued")
    assert len(executed) == 1


def join(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for name, value in (("RANK", str(rank)), ("WORLD_SIZE", "3"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)


def test_only_rank_0_has_a_folder(executed: Executed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    join(monkeypatch, rank=1)
    assert main.main(["algorithm=asgd", "cluster=processes", "seed=5"]) == 0
    cfg, folder = executed[0]
    assert folder is None
    assert (cfg.seed, cfg.names.algorithm) == (5, "asgd")
    assert list(tmp_path.iterdir()) == []
    join(monkeypatch, rank=0)
    assert main.main(["algorithm=asgd", "cluster=processes", "seed=5"]) == 0
    same, folder = executed[1]
    assert folder is not None
    assert same == cfg


@pytest.mark.slow
def test_one_rank_of_a_machine_reports_a_mistake(
    executed: Executed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """If a launcher does not number the ranks of a machine, nobody knows whether rank 0 is there: each says it."""
    for rank, local, lines in ((0, "0", 1), (1, "1", 0), (2, "0", 1), (2, None, 1)):
        join(monkeypatch, rank=rank)
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        if local is not None:
            monkeypatch.setenv("LOCAL_RANK", local)
        for wrong in (["run.epoch=3"], ["cluster=simulated"], ["-m", "seed=0,1"]):
            assert main.main(wrong) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == lines
            assert said.startswith("dcrun: rank 2: ") == (local is None)


def test_config_dir_adds_options(executed: Executed, tmp_path: Path):
    (tmp_path / "more" / "algorithm").mkdir(parents=True)
    (tmp_path / "more" / "algorithm" / "mine.yaml").write_text("_target_: mine.Mine\n")
    assert main.main(["algorithm=mine", "--config-dir", "more", "seed=1"]) == 0
    assert executed[0][0].algorithm == {"_target_": "mine.Mine"}


def test_flags_and_overrides_mix(executed: Executed, capsys: pytest.CaptureFixture[str]):
    assert main.main(["seed=4", "--cfg", "job", "run.epochs=2", "--package", "run"]) == 0
    assert "epochs: 2.0" in capsys.readouterr().out


def test_as_module_with_everything_real(tmp_path: Path):
    command = [sys.executable, "-m", "runner.cli", "model=linear", "run.epochs=1", "logger=none", "run.threads=1"]
    root = str(CONF.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "hydra.run.dir=a"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert json.loads((tmp_path / "a" / "summary.json").read_text())["status"] == "completed"


@pytest.mark.slow
@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has a GPU")
def test_missing_gpu_is_one_line(tmp_path: Path):
    arguments = ["algorithm=dc_asgd_a", "cluster.workers=8", "run.device=cuda", "run.precision=tf32"]
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CONF.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "run.device=cuda: this machine has 0 usable GPUs; allowed: cpu, auto" in line
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_sweeps_of_one_second_have_two_folders():
    code = "from runner.cli import main as cli\ncli._sweep = lambda args, jobs: print(jobs[0].hydra.sweep.dir) or 0\n"
    command = [sys.executable, "-c", code + "cli.main(['-m', 'seed=0'])"]
    environment = os.environ | {"PYTHONPATH": str(Path(main.__file__).parents[2])}
    sweeps = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    names = {sweep.communicate(timeout=120)[0].strip() for sweep in sweeps}
    assert all(re.fullmatch(r"outputs/dcrun/[\d_-]+_[0-9a-f]{6}", name) for name in names)
    assert len({name[-6:] for name in names}) == 2


def test_folder_that_is_gone_is_one_line(
    executed: Executed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main.main([]) == 2
    assert capfd.readouterr().err == "dcrun: the current folder does not exist any more; allowed: cd to one that does\n"


def test_unexpected_error_is_one_line(
    executed: Executed, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Hydra's own files come before the run: a full disk that does not take them was a traceback."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "config.yaml")

    monkeypatch.setattr("hydra.core.utils._save_config", full)
    assert main.main([]) == 1
    told = "OSError: [Errno 28] No space left on device: 'config.yaml' (HYDRA_FULL_ERROR=1 shows the traceback)"
    assert capfd.readouterr().err == f"dcrun: {told}\n"


def test_unreadable_option_of_the_users_is_one_line(
    executed: Executed, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "net.yaml").write_text("a: 1\n\tb: 2\n")
    for typed in (["model=net"], ["-m", "model=net,mlp"]):
        assert main.main(["--config-dir", str(tmp_path / "mine"), *typed]) == 2
        err = capfd.readouterr().err
        assert err.startswith(f"dcrun: {tmp_path}/mine/model/net.yaml, line 2: is not YAML (")
        assert err.count("\n") == 1
