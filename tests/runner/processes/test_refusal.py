"""What a method sends and did not declare ends a run on processes as it ends a simulation: one line, exit code 2."""

# torch's type stubs do not know its stores.
# pyright: reportPrivateImportUsage=false
import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from runner.config.errors import InputError
from runner.loop.stop import PeerLost
from runner.processes.refusal import check_refusal, told_by_rank_zero
from runner.processes.rendezvous import Rendezvous
from tests.trial import compose, run_in, train

DATA = ("model=linear", "dataset.limit_train=60", "dataset.limit_test=20", "run.batch_size=5", "run.epochs=2")
SPEAKING = ("algorithm=asgd", "algorithm._target_=tests.speaking.Speaking", *DATA)


def rendezvous(rank: int, local: bool = True) -> Rendezvous:
    store = dist.HashStore()
    store.set_timeout(datetime.timedelta(seconds=5))
    return Rendezvous(rank, 2, store, local, 5.0)


def refuse(where: Rendezvous) -> None:
    with told_by_rank_zero(where):
        raise InputError("Method, push: field x is not declared")


def test_rank_zero_says_what_another_rank_refused():
    where = rendezvous(1)
    check_refusal(where.store)
    with pytest.raises(PeerLost):
        refuse(where)
    with pytest.raises(InputError, match=r"^Method, push: field x is not declared$"):
        check_refusal(where.store)


@pytest.mark.parametrize(("rank", "local"), [(0, True), (1, False)])
def test_rank_zero_and_torchruns_ranks_say_it_themselves(rank: int, local: bool):
    where = rendezvous(rank, local)
    with pytest.raises(InputError):
        refuse(where)
    check_refusal(where.store)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("undeclared", "field x is not declared"),
        ("float64", "field g is float64 of shape"),
        ("shape", r"field g is float32 of shape \[1, "),
        ("missing", "field g is missing"),
        ("converted", r"field count is int64 of shape \[1\]; allowed: float32"),
    ],
)
def test_simulation_refuses_what_processes_cannot_carry(said: str, wrong: str, tmp_path: Path):
    with pytest.raises(InputError, match=f"^SpeakingWorker, push: {wrong}"):
        train(*SPEAKING, f"algorithm.staleness={said}", folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((*SPEAKING, "algorithm.staleness=undeclared"), "SpeakingWorker, push: field x is not declared; allowed: g"),
        (
            ("algorithm=local_sgd", "algorithm._target_=tests.speaking.Careless", *DATA),
            "Careless, contribution: field extra is not declared; allowed: x",
        ),
    ],
    ids=["server", "collective"],
)
def test_processes_refuse_in_one_line(given: tuple[str, ...], line: str, tmp_path: Path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "runner.cli", *given, "logger=none", "cluster=processes", "cluster.workers=2"]
    run = subprocess.run(
        [*command, f"hydra.run.dir={folder}"], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 2
    assert [text for text in run.stderr.splitlines() if "is not declared" in text] == [f"dcrun: {line}"]
    assert json.loads((folder / "summary.json").read_text())["status"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        (*SPEAKING, "algorithm.staleness=count"),
        ("algorithm=ssgd", "algorithm._target_=tests.speaking.Counting", *DATA),
    ],
    ids=["server", "gathered"],
)
def test_whole_numbers_travel_exactly(given: tuple[str, ...], tmp_path: Path):
    workers = "cluster.workers=1" if "algorithm=asgd" in given else "cluster.workers=2"
    simulated = run_in(tmp_path / "simulated", *given, workers)[1]
    code, real = run_in(tmp_path / "processes", *given, workers, "cluster=processes")
    assert (code, real["weights_sha256"]) == (0, simulated["weights_sha256"])


def test_declared_whole_numbers_arrive_in_simulation(tmp_path: Path):
    trial = train(*SPEAKING, "algorithm.staleness=count", "cluster.workers=3", folder=tmp_path)
    assert int(trial.state["total"]) == sum(range(24))
    assert compose(*SPEAKING).algorithm.staleness == "plain"
