"""What is refused before anything is built; messages of whole runs are in test_build.py."""

import re

import pytest
import torch

from algorithms.asgd import ASGD
from algorithms.ddg import DDG
from algorithms.hogwild import Hogwild
from algorithms.local_sgd import LocalSGD
from algorithms.method import Stateful
from algorithms.ssgd import SSGD
from data.base import Dataset
from data.digits import Digits
from data.text import Text
from runner.config.errors import InputError
from runner.train.build import build_run
from runner.train.compatibility import check_algorithm, check_device, check_problem, check_size, check_targets
from tests.trial import compose


@pytest.mark.parametrize(
    ("algorithm", "workers", "overrides", "message"),
    [
        (SSGD, 2, ["cluster.record=true"], "cluster.record=true: .* has no parameter server"),
        (Hogwild, 2, ["cluster.record=true"], "cluster.record=true: .* has no parameter server"),
        (SSGD, 2, ["run.diagnostics=[disagreement]"], "run.diagnostics=disagreement: .* one vector of weights"),
        (LocalSGD, 1, ["run.diagnostics=[disagreement]"], "run.diagnostics=disagreement: .* one vector of weights"),
        (ASGD, 2, ["run.diagnostics=[sufficient_direction]"], "run.diagnostics=sufficient_direction: .* does not cut"),
        (DDG, 2, ["run.precision=bf16"], "run.precision=bf16: .* cuts the network into modules; allowed: fp32, tf32"),
        (DDG, 2, ["run.compile=true"], "run.compile=true: .* cuts the network into modules; allowed: false"),
        (DDG, 2, ["run.micro_batch=4"], "run.micro_batch=4: .* cuts the network into modules; allowed: null"),
        (
            DDG,
            2,
            ["cluster=processes", "run.diagnostics=[sufficient_direction]"],
            "run.diagnostics=sufficient_direction: no process has the weights of all modules",
        ),
        (DDG, 2, ["cluster=processes", "cluster.network.latency=0.1"], "cluster.network.latency=0.1: .*; allowed: 0"),
        (DDG, 2, ["cluster=processes", "cluster.network.bandwidth=1e6"], "cluster.network.bandwidth=1000000: "),
        (Hogwild, 2, ["cluster=processes", "run.device=cuda"], "run.device=cuda: .* shares the memory of processes"),
    ],
)
def test_kind_of_algorithm_refuses(algorithm: type[Stateful], workers: int, overrides: list[str], message: str):
    with pytest.raises(InputError, match="^" + message):
        check_algorithm(compose(*overrides), algorithm, workers)


@pytest.mark.parametrize(
    ("algorithm", "overrides"),
    [
        (ASGD, ["cluster.record=true"]),
        (LocalSGD, ["run.diagnostics=[disagreement]"]),
        (DDG, ["run.diagnostics=[sufficient_direction]", "cluster.network.latency=0.1"]),
        (Hogwild, ["run.device=cuda"]),
        (SSGD, ["run.precision=bf16", "run.compile=true", "run.micro_batch=4"]),
    ],
)
def test_kind_of_algorithm_allows(algorithm: type[Stateful], overrides: list[str]):
    cfg = compose(*overrides)
    before = cfg.run.device
    check_algorithm(cfg, algorithm, 2)
    assert cfg.run.device == before


def test_shared_memory_of_processes_is_on_the_cpu():
    cfg = compose("cluster=processes", "run.device=auto")
    check_algorithm(cfg, Hogwild, 2)
    assert cfg.run.device == "cpu"


@pytest.mark.parametrize(
    ("algorithm", "batch", "workers", "message"),
    [
        (ASGD, 26, 4, "run.batch_size=26: 4 workers would need 104 samples at a time, .* allowed: 1 to 25"),
        (SSGD, 1, 101, "cluster.workers=101: .*; allowed: 1 to 100"),
        (DDG, 101, 2, "run.batch_size=101: 1 workers would need 101 samples at a time, .* allowed: 1 to 100"),
    ],
)
def test_batches_larger_than_the_data(algorithm: type[Stateful], batch: int, workers: int, message: str):
    with pytest.raises(InputError, match="^" + message):
        check_size(compose(f"run.batch_size={batch}"), algorithm, workers, 100)


def test_modules_share_a_batch():
    check_size(compose("run.batch_size=100"), DDG, 2, 100)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch):
    cfg, cpu = compose("run.compile=true"), torch.device("cpu")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"^run\.compile=true: needs a C"):
        check_device(cfg, ASGD, cpu)
    check_device(cfg, ASGD, torch.device("cuda"))
    monkeypatch.setenv("CXX", "true")
    check_device(cfg, ASGD, cpu)
    with pytest.raises(InputError, match=r"^run\.compile=true: fuses a server's update"):
        check_device(cfg, Hogwild, cpu)


def test_separable_methods_refuse_batch_norm():
    run = build_run(compose("algorithm=nag", "model=resnet8", "dataset.limit_train=32"))
    method = run.method
    check_problem(run.cfg, method, run.oracle, run.dataset.train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "separable", True)
        with pytest.raises(InputError, match=r"^model=resnet8: has batch norm"):
            check_problem(run.cfg, method, run.oracle, run.dataset.train)


def test_modules_need_samples_in_memory():
    run = build_run(compose("algorithm=ddg", "model=mlp"))
    check_problem(run.cfg, run.method, run.oracle, run.dataset.train)
    run.oracle.streams = True
    with pytest.raises(InputError, match=re.escape("dataset=digits: algorithm=ddg needs the samples in memory")):
        check_problem(run.cfg, run.method, run.oracle, run.dataset.train)


@pytest.mark.parametrize(
    ("model", "dataset", "message"),
    [
        ("mlp", "text", "model=mlp: takes no token numbers, which the samples of dataset=text are; allowed: gpt"),
        ("gpt", "digits", "model=gpt: takes token numbers, which the samples of dataset=digits are not; allowed: with"),
    ],
)
def test_tokens_need_a_model_of_tokens(model: str, dataset: str, message: str):
    with pytest.raises(InputError, match="^" + message):
        check_targets(compose(f"model={model}", f"dataset={dataset}"), dataset_of(dataset))


def test_a_language_model_fits_its_text():
    check_targets(compose("model=gpt", "dataset=text"), dataset_of("text"))


def dataset_of(name: str) -> Dataset:
    return Text(limit_train=4) if name == "text" else Digits(limit_train=16)


@pytest.mark.parametrize("workers", [1, 2])
def test_modules_refuse_a_shared_weight(workers: int):
    own = ["model=gpt", "model.width=8", "dataset=text", "dataset.limit_train=8", "run.batch_size=4"]
    with pytest.raises(
        InputError, match=r"^model=gpt: its blocks embedding and head share a weight.* model.tied=false$"
    ):
        build_run(compose("algorithm=bp", f"cluster.workers={workers}", "model.tied=true", *own))
