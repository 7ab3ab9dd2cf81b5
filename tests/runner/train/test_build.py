import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.config.errors import InputError
from runner.config.schema import GPU_SLOT
from runner.train import build
from tests.trial import compose, train

CPU = torch.device("cpu")


def load(*overrides: str) -> build.RunComponents:
    return build.build_run(compose("dataset.limit_train=100", "dataset.limit_test=20", *overrides))


def test_components_fit_each_other():
    components = load("algorithm=dc_asgd_a", "model=resnet8", "run.batch_size=8", "run.epochs=1.5", "schedule.lr=0.3")
    assert components.workers == 4
    assert components.oracle.split is components.dataset.train
    assert len(components.dataset.train) == components.batches.samples == 100
    assert len(components.batches) == 13 + 7
    assert components.schedule.at(0).lr == 0.3
    assert components.oracle.replica.channels_last
    components.oracle.replica.check_aliasing()


def test_collective_step_takes_all_workers_batches():
    components = load("algorithm=ssgd", "model=linear", "run.batch_size=8", "cluster.workers=3")
    assert components.batches.size == 24
    assert load("algorithm=asgd", "model=linear", "run.batch_size=8", "cluster.workers=3").batches.size == 8


def test_schedule_knows_the_workers():
    options = ("schedule.warmup_epochs=2", "schedule.lr=0.4", "run.batch_size=8")
    assert load("algorithm=asgd", "model=linear", "cluster.workers=4", *options).schedule.at(0).lr == pytest.approx(0.1)
    assert load("algorithm=asgd", "model=linear", "cluster.workers=2", *options).schedule.at(0).lr == pytest.approx(0.2)


@pytest.mark.parametrize(("algorithm", "workers"), [("sgd", 1), ("ssgd", 4), ("asgd", 4)])
def test_algorithm_has_its_own_number_of_workers(algorithm: str, workers: int):
    assert load(f"algorithm={algorithm}", "model=linear", "run.batch_size=8").workers == workers


def test_new_method_is_another_instance():
    components = load("algorithm=ssgd", "model=linear", "run.batch_size=8")
    other = components.new_method()
    assert type(other) is type(components.method)
    assert other is not components.method


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("algorithm=asgd", "cluster.workers=4"), 1),
        (("algorithm=sgd",), build.PYTORCHS_THREADS),
        (("algorithm=asgd", "cluster.workers=1"), build.PYTORCHS_THREADS),
        (("algorithm=asgd", "cluster=processes", "cluster.workers=4"), build.PYTORCHS_THREADS),
        (("algorithm=asgd", "cluster.workers=4", "run.threads=3"), 3),
    ],
)
def test_several_simulated_workers_have_one_thread(overrides: tuple[str, ...], expected: int):
    cfg = compose("run.threads=null", *overrides)
    workers = cfg.cluster.workers or 1
    assert build.threads_of(cfg, workers) == expected


WRONG = [
    (
        ["algorithm=sgd", "cluster.workers=4"],
        "cluster.workers=4: algorithm=sgd runs on one worker; allowed: 1, or null",
    ),
    (
        ["algorithm=asgd", "run.batch_size=26"],
        "run.batch_size=26: 4 workers would need 104 samples at a time, but the training set has 100; allowed: 1 to 25",
    ),
    (
        ["algorithm=asgd", "cluster.workers=200"],
        "cluster.workers=200: 200 workers would need 6400 samples at a time, but the training set has 100; allowed: 1",
    ),
    (
        ["algorithm=asgd", "cluster.compute.speeds=[1,2]"],
        "cluster.compute.speeds=.1,2.: has 2 entries; allowed: one per worker .cluster.workers=4.",
    ),
    (["algorithm=asgd", "cluster.compute.speeds=[]"], "cluster.compute.speeds=..: has 0 entries"),
    (
        ["algorithm=asgd", "cluster.stragglers.workers=[7]"],
        "cluster.stragglers.workers=.7.: there is no worker 7; allowed: numbers from 0 to 3",
    ),
    (
        ["algorithm=sgd", "run.epochs=1e-10"],
        "run.epochs=1e-10: is too short for a single update on 100 samples; allowed: 0.01 or more",
    ),
    (["algorithm=sgd", "run.batch_size=101"], "run.batch_size=101: .* allowed: 1 to 100"),
    (["algorithm=dc_asgd_c", "algorithm.lambda0=-1"], "algorithm.lambda0=-1: out of range; allowed: lambda0 >= 0"),
    (["algorithm=dc_asgd_a", "algorithm.m=1"], "algorithm.m=1: out of range; allowed: 0 <= m < 1"),
    (["algorithm=dc_asgd_a", "algorithm.m=much"], "algorithm.m=much: is not a number; allowed: 0 <= m < 1"),
    (["algorithm=dc_asgd_a", "algorithm.m=true"], "algorithm.m=True: is not a number; allowed: 0 <= m < 1"),
    (
        ["algorithm=asgd", "algorithm.nesterov=maybe"],
        "algorithm.nesterov=maybe: is neither true nor false",
    ),
    (["dataset.limit_train=-3"], "dataset.limit_train=-3: "),
    (
        ["dataset.validation=1.0"],
        "dataset.validation=1.0: is not allowed; allowed: 1 to 90 of the 100 training samples",
    ),
    (["dataset.validation=many"], "dataset.validation=many: is not allowed; allowed: 1 to 90 of the 100"),
    (["dataset.validation=91"], "dataset.validation=91: is not allowed; allowed: 1 to 90 of the 100 .*class keeps one"),
    (["dataset.validation=.nan"], "dataset.validation=nan: is not allowed"),
    (
        ["algorithm=sgd", "dataset.validation=70"],
        "run.batch_size=32: 1 workers would need 32 samples at a time, but the training set has 30; allowed: 1 to 30",
    ),
    (
        ["dataset=synthetic", "dataset.shape=[22]", "model=resnet20", "run.batch_size=8"],
        "model=resnet20: cannot take .*shape",
    ),
    (
        ["algorithm=ssgd", "cluster.record=true"],
        "cluster.record=true: algorithm=ssgd has no parameter server, .*; allowed: false, or null",
    ),
    (
        ["algorithm=ssgd", "run.diagnostics=[disagreement]"],
        "run.diagnostics=disagreement: with algorithm=ssgd and 4 worker.s. there is one vector of weights",
    ),
    (["algorithm=asgd", "run.diagnostics=[disagreement]"], "run.diagnostics=disagreement: with algorithm=asgd"),
    (["run.precision=tf32"], "run.precision=tf32: needs a GPU, but the run is on cpu; allowed: fp32, bf16"),
    (["dataset=mnist", "dataset.root=/nowhere", "model=mlp"], "dataset.root=/nowhere"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=[" ".join(overrides) for overrides, _ in WRONG])
def test_wrong_input_is_one_line(overrides: list[str], message: str):
    cfg = compose(*(["dataset.limit_train=100"] if "mnist" not in overrides[0] else []), *overrides)
    with pytest.raises(InputError, match="^" + message.replace("(", r"\(")) as error:
        build.build_run(cfg)
    assert "\n" not in str(error.value)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    wrong = "run.compile=true: needs a C++ compiler, but there is no no-such-compiler; allowed: false"
    with pytest.raises(InputError, match=re.escape(wrong)):
        load("run.compile=true", "run.device=cpu")
    assert load("run.device=cpu", "run.batch_size=8").oracle is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_missing_gpu_is_refused(device: str):
    with pytest.raises(
        InputError, match=re.escape(f"run.device={device}: this machine has 0 usable GPUs; allowed: cpu")
    ):
        load(f"run.device={device}")


@pytest.mark.parametrize(
    ("device", "slot", "rank", "expected"),
    [("cuda", "0", 0, 0), ("auto", "1", 0, 1), ("cuda", "2", 0, 0), ("auto", "1", 1, 0), ("cuda:1", "2", 0, 1)],
)
def test_jobs_and_ranks_spread_over_gpus(
    device: str, slot: str, rank: int, expected: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv(GPU_SLOT, slot)
    assert build.device_of(compose(f"run.device={device}"), rank) == torch.device("cuda", expected)


@pytest.fixture
def arithmetic() -> Iterator[None]:
    """Puts back what a run sets for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


@pytest.mark.usefixtures("arithmetic")
def test_deterministic_lasts_until_the_next_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    seen = []
    monkeypatch.setattr(
        build, "device_of", lambda cfg, rank: seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG")) or CPU
    )
    load("model=linear", "run.batch_size=8", "run.deterministic=true")
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    # Before anything can have started CUDA.
    assert seen == [":4096:8"]
    load("model=linear", "run.batch_size=8")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


@pytest.mark.usefixtures("arithmetic")
def test_unrepeatable_operator_is_refused():
    class Unrepeatable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, outputs: torch.Tensor) -> torch.Tensor:
            return outputs.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
            # One of the operators that say so on a CPU too.
            torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
            return gradients[0]

    components = load("model=linear", "run.batch_size=8", "run.deterministic=true")
    module: Any = components.oracle.replica.module
    module.register_forward_hook(lambda layer, given, outputs: Unrepeatable.apply(outputs))
    with pytest.raises(InputError, match=r"^run.deterministic=true: put_ is not repeatable .*; allowed: false$"):
        components.oracle.gradient(components.oracle.replica.weights, components.batches.batch(0))


def test_fp32_uses_no_tf32():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    load("model=linear", "run.batch_size=8")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_cpu_captures_and_compiles_no_network():
    oracle = load("model=linear", "run.batch_size=8", "run.compile=true").oracle
    assert oracle.steps is None
    assert oracle._compiled == oracle.loss


def test_number_of_threads_is_set():
    before = torch.get_num_threads()
    try:
        load("run.threads=2", "model=linear", "run.batch_size=8")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_weights_depend_on_seed_and_model_alone():
    def weights(*overrides: str) -> torch.Tensor:
        small = ("model=mlp", "dataset.limit_train=64", "run.batch_size=4")
        return build.build_run(compose(*overrides, *small)).oracle.replica.weights

    first = weights("algorithm=asgd", "dataset=digits")
    made_up = ("dataset=synthetic", "dataset.classes=10", "dataset.shape=[1,8,8]", "dataset.train=64")
    synthetic = build.build_run(compose("algorithm=ssgd", *made_up, "model=mlp", "run.batch_size=4"))
    assert torch.equal(first, synthetic.oracle.replica.weights)
    assert not torch.equal(first, weights("algorithm=asgd", "dataset=digits", "seed=1"))


@pytest.mark.parametrize(("micro_batch", "piece"), [("null", 50), ("8", 8), ("80", 50)])
def test_full_gradients_keep_to_the_micro_batch(micro_batch: str, piece: int):
    sizes = (f"run.micro_batch={micro_batch}", "run.eval_batch_size=50")
    assert build.build_run(compose("algorithm=asgd", "model=linear", *sizes)).oracle.piece == piece


def regression(folder: Path) -> tuple[str, ...]:
    random = np.random.default_rng(0)
    x = random.standard_normal((40, 3)).round(3)
    y = (x @ [2.0, -1.0, 0.5] + 20 + random.standard_normal(40)).round()
    lines = [f"{label:g} 1:{a:.3f} 2:{b:.3f} 3:{c:.3f}\n" for label, (a, b, c) in zip(y, x, strict=True)]
    (folder / "rings").write_text("".join(lines))
    return "dataset=libsvm", f"dataset.root={folder / 'rings'}"


@pytest.mark.parametrize("algorithm", ["sdca", "sgd"])
def test_regression_comes_close_to_numpys(algorithm: str, tmp_path: Path):
    data = (*regression(tmp_path), "dataset.targets=numbers", "dataset.test_share=0.25")
    rates = () if algorithm == "sdca" else ("schedule.lr=0.02",)
    options = ("model=ridge", "algorithm.weight_decay=0.5", "run.batch_size=5", "run.epochs=60", "run.eval_every=60")
    run = train(f"algorithm={algorithm}", *data, *options, *rates, folder=tmp_path)
    split = run.components.dataset.train
    x, y = split.inputs.double().numpy(), split.targets.double().numpy()
    best = np.linalg.solve(x.T @ x / 30 + 0.5 * np.eye(3), x.T @ y / 30)
    np.testing.assert_allclose(
        run.components.oracle.replica.weights.numpy(), best, atol=0.05 * float(np.linalg.norm(best))
    )
    [row] = run.notes.rows
    assert row["train_error"] is None
    assert "test_error" not in row
    test = run.components.dataset.test
    w = run.components.oracle.replica.weights
    assert row["test_loss"] == pytest.approx(float((test.inputs @ w - test.targets).square().mean() / 2), rel=1e-5)


@pytest.mark.parametrize("model", ["mlp", "logistic", "smoothed_hinge"])
def test_numbers_are_refused_by_what_guesses_classes(model: str, tmp_path: Path):
    options = (*regression(tmp_path), "dataset.targets=numbers", "run.batch_size=5")
    cfg = compose("algorithm=sgd", f"model={model}", *options)
    for check in (build.build_run, lambda cfg: build.check_run(cfg, {})):
        with pytest.raises(InputError, match=rf"^model={model}: guesses classes, but .*; allowed: ridge, or dataset.t"):
            check(cfg)


def test_whole_labels_are_classes_to_ridge_unless_said(tmp_path: Path):
    with pytest.raises(InputError, match=r"^model=ridge: separates two classes, .*; allowed: 2 .* dataset.targets=num"):
        build.build_run(compose("algorithm=sgd", "model=ridge", *regression(tmp_path), "run.batch_size=5"))


def test_plain_runs_import_only_what_they_use():
    """Each would cost every rank tenths of a second, or a whole one: PyTorch's compiler, what reads scikit-learn's
    digits, what counts operations or looks for a minimum, and what draws, logs or reports."""
    program = """
import sys
from tests.trial import compose, train
from runner.train.build import build_run
import runner.train.dispatch
build_run(compose("model=linear"))
unused = {"triton", "torch.utils.flop_counter", "scipy.optimize"}
unused |= {"wandb", "pandas", "torchvision", "matplotlib", "plotly"}
print(sorted(unused & {*sys.modules}))
build_run(compose("algorithm=ddg", "model=resnet8", "cluster.workers=3")).partition
print(sorted({"sklearn", "scipy.stats", "torch._dynamo", "torch._inductor"} & {*sys.modules}))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n[]\n", run.stdout + run.stderr
