import pytest
from omegaconf import OmegaConf

from runner.cli import main
from runner.config import schema
from runner.config.errors import InputError
from runner.sweeps import check_launcher, optuna_sweeper, submitit_launcher, subprocess_launcher


@pytest.fixture(autouse=True)
def known_to_hydra() -> None:
    for part in (schema, subprocess_launcher, optuna_sweeper, submitit_launcher):
        part.register()
    OmegaConf.register_new_resolver("random_hex", lambda: "0", use_cache=True, replace=True)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["hydra.launcher.n_jobs=0"], "n_jobs=0: is not a number of jobs; allowed: auto, integers from 1"),
        (
            ["hydra.launcher.n_jobs=all"],
            "n_jobs=all: is not a number of jobs; allowed: auto, integers from 1",
        ),
        (
            ["hydra/sweeper=optuna", "hydra.launcher.n_jobs=auto"],
            "n_jobs=auto: a search proposes as many settings as run at a time, and would propose others on another"
            " machine; allowed: integers from 1",
        ),
        (
            ["hydra/launcher=submitit_local", "hydra.launcher.n_jobs=auto"],
            "n_jobs=auto: hydra/launcher=submitit_local does not look at the machines that its jobs will get;"
            " allowed: integers from 1",
        ),
        (["hydra.launcher.fork=1"], "fork=1: is not a choice; allowed: true, false"),
    ],
)
def test_what_a_launcher_cannot_do_is_refused(given: list[str], line: str):
    with main.composer() as compose:
        config = compose.one([*given, "logger=none"])
    with pytest.raises(InputError) as refused:
        check_launcher.check(config)
    assert str(refused.value) == f"hydra.launcher.{line}"
