"""What only a GPU can show: the same numbers as on a CPU, the same bits again, and graphs that change nothing.

Tolerances: the gradient of an untrained ResNet-20 is within 5e-3 of the CPU's (relative, Euclidean norm) in fp32, 0.1
in tf32 and 0.3 in bf16; on a CPU another order of summation alone moves it by 9e-4, operands rounded as in TF32
by 3.5e-2, and bf16 by 0.12. Batch statistics are within 1e-4, 2e-3 and 2e-2. A fused update is within 1e-5 of the
operators that it is made of. In a run training amplifies rounding: losses of a short one agree to 5e-2.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from algorithms import blockwise
from algorithms.base import Batch, Step
from algorithms.dc_asgd import DCASGDAdaptive, DCASGDConstant
from algorithms.dc_ssgd import DCSSGD
from data.augment import PadCrop
from runner.gradients.cuda_graph import CapturedSteps
from runner.simulated.arena import Arena, NotShareable, lay_out
from runner.simulated.transfers import PinnedTransfers
from runner.train import build
from tests.trial import Trial, compose, interrupt, run_in, when

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

RUN = (
    "model=resnet20",
    "dataset=synthetic",
    "dataset.shape=[3,32,32]",
    "dataset.train=1000",
    "dataset.test=100",
    "run.batch_size=32",
    "run.epochs=2",
    "schedule.lr=0.05",
)
GPU = ("run.device=cuda",)


def components(*overrides: str) -> build.RunComponents:
    return build.build_run(compose(*RUN, *overrides))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.cpu() - b.cpu()).norm() / b.cpu().norm())


@pytest.mark.parametrize(
    ("precision", "tolerance", "of_statistics"), [("fp32", 5e-3, 1e-4), ("tf32", 0.1, 2e-3), ("bf16", 0.3, 2e-2)]
)
def test_gpu_gradient_is_close_to_cpu(precision: str, tolerance: float, of_statistics: float):
    reference, here = components("algorithm=sgd"), components("algorithm=sgd", *GPU, f"run.precision={precision}")
    batch = reference.batches.batch(3)
    expected = reference.oracle.gradient(reference.oracle.replica.weights, batch)
    got = here.oracle.gradient(here.oracle.replica.weights, here.batches.batch(3))
    assert torch.equal(here.batches.batch(3).ids.cpu(), batch.ids)
    assert distance(got, expected) < tolerance
    assert distance(here.oracle.replica.statistics, reference.oracle.replica.statistics) < of_statistics
    assert here.oracle.totals[2] == reference.oracle.totals[2]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_captured_steps_equal_eager_bits(precision: str):
    common = ("algorithm=sgd", *GPU, f"run.precision={precision}", "run.deterministic=true")
    captured, eager = components(*common), components(*common, "run.capture=false")
    for given in (captured, eager):
        given.dataset.train.augment = PadCrop(4, flip=True)
    assert captured.oracle.steps is not None
    assert eager.oracle.steps is None
    generator = torch.Generator().manual_seed(0)
    for number, (size, epoch) in enumerate([(32, 0), (32, 0), (8, 0), (32, 1), (8, 1), (32, 2), (8, 2)]):
        ids = torch.randperm(1000, generator=generator)[:size]
        w = eager.oracle.replica.weights + 0.01 * number
        a, b = (given.oracle.gradient(w, Batch(number, epoch, ids)) for given in (captured, eager))
        assert torch.equal(a, b), number
        assert torch.equal(captured.oracle.replica.statistics, eager.oracle.replica.statistics), number
        assert torch.equal(captured.oracle.totals, eager.oracle.totals), number
    assert captured.oracle.steps.refused is None
    assert set(captured.oracle.steps.captured) == {(32, 0), (8, 0)}


@pytest.mark.parametrize("capture", ["auto", "false"])
def test_pinned_weights_arrive_beside_the_batch(capture: str):
    """A branch of the graph, or a second stream: the same bits as copying them first."""
    common = ("algorithm=sgd", *GPU, "run.deterministic=true", f"run.capture={capture}")
    beside, first = components(*common), components(*common)
    first.oracle.side_stream = None
    inbox = torch.empty(first.oracle.replica.weights.shape, pin_memory=True)
    start = first.oracle.replica.weights.to("cpu", copy=True)
    for number in range(6):
        inbox.copy_(start + 0.01 * number)
        batch = Batch(number, 0, torch.arange(32) + number)
        a, b = (given.oracle.gradient(inbox, batch) for given in (beside, first))
        assert torch.equal(a, b), number
    if beside.oracle.steps is not None:
        assert beside.oracle.steps.refused is None
        assert set(beside.oracle.steps.captured) == {(32, inbox.data_ptr())}


def test_capturing_changes_no_state():
    given = components("algorithm=sgd", *GPU)
    steps, replica = given.oracle.steps, given.oracle.replica
    assert isinstance(steps, CapturedSteps)
    given.oracle.gradient(replica.weights, given.batches.batch(0))
    before = [t.clone() for t in (replica.weights, replica.statistics, given.oracle.totals)]
    state = torch.cuda.get_rng_state()
    assert steps._capture(given.batches.batch(1).ids) is not None
    assert all(
        torch.equal(a, b)
        for a, b in zip((replica.weights, replica.statistics, given.oracle.totals), before, strict=True)
    )
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("algorithm", ["sgd", "dc_asgd_a", "dc_ssgd", "local_sgd", "clars"])
def test_host_never_waits_inside_an_epoch(algorithm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    # Whole batches only: another size would still be captured in the second epoch.
    trial = Trial(f"algorithm={algorithm}", *RUN, *GPU, "dataset.train=1024", folder=tmp_path)
    evaluate = trial.control.evaluate

    def watched(*given, **options) -> None:
        torch.cuda.set_sync_debug_mode("default")
        evaluate(*given, **options)
        # From the second epoch on: compiling and capturing are done.
        torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(trial.control, "evaluate", watched)
    try:
        trial.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trial.control.epoch == 2


@pytest.mark.parametrize("algorithm", ["sgd", "dc_asgd_a"])
def test_simulation_repeats_captured_or_not(algorithm: str, tmp_path: Path):
    common = (f"algorithm={algorithm}", *RUN, *GPU, "run.deterministic=true")
    first, again, eager = (
        run_in(tmp_path / name, *common, *more)[1]
        for name, more in (("first", ()), ("again", ()), ("eager", ("run.capture=false",)))
    )
    assert first["status"] == "completed"
    for other in (again, eager):
        assert other["weights_sha256"] == first["weights_sha256"]
        assert other["buffers_sha256"] == first["buffers_sha256"]


@pytest.mark.parametrize("algorithm", ["asgd", "dc_asgd_a", "asysvrg", "local_sgd", "dc_ssgd", "shared_asysvrg"])
def test_compute_processes_have_the_bits_of_one(algorithm: str, tmp_path: Path):
    """Two processes, on two GPUs of a kind or on one; captured steps, and weights through page-locked memory."""
    # SVRG's methods take no batch norm.
    model = ("model=resnet8_nobn",) if algorithm.endswith("svrg") else RUN[:1]
    common = (f"algorithm={algorithm}", *model, *RUN[1:], *GPU, "cluster.workers=3", "run.deterministic=true")
    one, two = (run_in(tmp_path / str(n), *common, f"run.compute_processes={n}")[1] for n in (1, 2))
    assert two["status"] == "completed"
    for key in ("weights_sha256", "buffers_sha256", "updates", "seconds"):
        assert two[key] == one[key]
    assert (tmp_path / "2" / "metrics.jsonl").read_text() == (tmp_path / "1" / "metrics.jsonl").read_text()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_process_is_on_the_second_gpu(tmp_path: Path):
    """Nobody else takes memory there meanwhile."""
    free = torch.cuda.mem_get_info(1)[0]
    given = ("algorithm=asgd", *RUN, *GPU, "cluster.workers=2", "run.epochs=1000", "run.compute_processes=auto")
    taken = when(lambda: free - torch.cuda.mem_get_info(1)[0] > 2**26, lambda: interrupt(signal.SIGINT), 60.0)
    _, summary = run_in(tmp_path / "run", *given)
    taken.join()
    assert summary["status"] == "interrupted"


def test_memory_of_processes_is_pinned_and_unpinned():
    arena, device = Arena(2**20), torch.device("cuda", torch.cuda.current_device())
    shared = arena.tensors(lay_out({"w": 1000}, 0))
    pinned = PinnedTransfers(device)
    assert not shared["w"].is_pinned()
    pinned.attach(arena)
    assert shared["w"].is_pinned()
    own = {"w": torch.arange(1000.0, device=device)}
    pinned.share(own, shared)
    own["w"].zero_()
    pinned.finish()
    assert torch.equal(shared["w"], torch.arange(1000.0)), "as it was when the copy was begun"
    assert torch.equal(pinned.fetch(shared)["w"].cpu(), shared["w"])
    pinned.close()
    assert not shared["w"].is_pinned()


def test_a_failed_lock_is_forgotten():
    """CUDA tells an error once more: to the next kernel, which has nothing to do with it."""
    arena, device = Arena(2**20), torch.device("cuda", torch.cuda.current_device())
    pinned = PinnedTransfers(device)
    pinned.attach(arena)
    with pytest.raises(NotShareable, match="cannot be page-locked"):
        PinnedTransfers(device).attach(arena)
    assert float(torch.ones(3, device=device).sum()) == 3
    pinned.close()


def test_a_short_run_has_the_cpus_losses(tmp_path: Path):
    here = run_in(tmp_path / "gpu", "algorithm=dc_asgd_a", *RUN, *GPU)[1]
    there = run_in(tmp_path / "cpu", "algorithm=dc_asgd_a", *RUN)[1]
    assert here["updates"] == there["updates"]
    assert here["final_train_loss"] == pytest.approx(there["final_train_loss"], rel=5e-2)


@pytest.mark.parametrize("method", [DCASGDConstant(lambda0=2.0), DCASGDAdaptive(lambda0=2.0, m=0.9, momentum=0.9)])
def test_fused_updates_are_close_to_operators(method: DCASGDConstant, monkeypatch: pytest.MonkeyPatch):
    start, g = torch.randn(2, 100_003, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    results = []
    for possible in (True, False):
        monkeypatch.setattr(blockwise, "FUSED", fused := blockwise._Fused())
        fused.possible = possible
        method.start(start.clone(), 3)
        for worker in (0, 1, 2, 1):
            method.push(worker, {"g": g}, Step(lr=0.1 / (1 + worker)))
            method.pull(worker)
        # Not given up: a kernel was compiled.
        assert fused.possible == possible
        results.append({name: tensor.clone() for name, tensor in method.state().items()})
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-5, atol=1e-6, msg=name)


def test_gpu_sorted_gradients_update_as_cpu():
    vectors = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    results = []
    for device in ("cpu", "cuda"):
        method = DCSSGD(lambda0=0.5)
        method.start(vectors[0].to(device, copy=True), 0, 4)
        gathered = vectors[1:].to(device)
        norms = gathered.norm(dim=1, keepdim=True)
        method.apply({"g": gathered, "norm": norms}, Step(lr=0.1))
        results.append(method.w.cpu())
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_gpu_worker_process_is_sequential_sgd(tmp_path: Path):
    common = ("dataset.limit_train=200", *RUN[6:], *GPU, "run.deterministic=true")
    code, real = run_in(tmp_path / "real", "algorithm=asgd", "cluster=processes", "cluster.workers=1", *common)
    assert (code, real["status"]) == (0, "completed")
    sequential = run_in(tmp_path / "sequential", "algorithm=sgd", *common)[1]
    # The server is on the CPU, where an update has another rounding than the GPU's fused one.
    assert real["final_train_loss"] == pytest.approx(sequential["final_train_loss"], rel=5e-2)


@pytest.mark.parametrize("algorithm", ["ssgd", "local_sgd", "dasgd", "dc_ssgd"])
def test_two_ranks_on_gpus_are_the_simulation(algorithm: str, tmp_path: Path):
    """On one GPU the two share it, and vectors go through CPU memory; on two GPUs they go from one to the other."""
    common = (f"algorithm={algorithm}", *RUN, *GPU, "cluster.workers=2", "run.deterministic=true")
    code, real = run_in(tmp_path / "real", *common, "cluster=processes")
    assert (code, real["status"]) == (0, "completed")
    simulated = run_in(tmp_path / "simulated", *common)[1]
    assert real["updates"] == simulated["updates"]
    assert real["final_train_loss"] == pytest.approx(simulated["final_train_loss"], rel=5e-2)


@pytest.mark.slow
def test_a_compiled_network_is_captured_and_close(tmp_path: Path):
    common = ("algorithm=sgd", *RUN, *GPU)
    plain, compiled = (
        run_in(tmp_path / name, *common, *more)[1]
        for name, more in (("plain", ()), ("compiled", ("run.compile=true",)))
    )
    assert compiled["final_train_loss"] == pytest.approx(plain["final_train_loss"], rel=5e-2)


@pytest.mark.slow
def test_jobs_of_a_sweep_share_the_gpus(tmp_path: Path):
    command = [sys.executable, "-m", "runner.cli", "-m", "hydra.launcher.n_jobs=2", "seed=0,1", "logger=none"]
    root = str(Path(build.__file__).parents[2])
    done = subprocess.run(
        [*command, "run.device=cuda", "run.epochs=1", "model=resnet8", "dataset.limit_train=200"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert done.returncode == 0
