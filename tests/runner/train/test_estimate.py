import pytest
import torch

from runner.train import build, estimate
from runner.train.executors import topology_of
from tests.trial import compose


@pytest.mark.parametrize("algorithm", ["asgd", "ssgd", "dasgd", "dc_ssgd", "ddg", "bp"])
def test_every_topology_can_be_estimated(algorithm: str, capsys: pytest.CaptureFixture):
    assert estimate.show(build.build_run(compose(f"algorithm={algorithm}", "model=mlp", "run.epochs=2"))) == 0
    out = capsys.readouterr().out
    assert "7,510" in out, "the parameters"
    assert "expected wall time" in out


def test_begun_evaluation_counts(capsys: pytest.CaptureFixture):
    overrides = ("algorithm=asgd", "model=linear", "run.epochs=10", "run.eval_every=4", "dataset.limit_train=320")
    assert estimate.show(build.build_run(compose(*overrides))) == 0
    assert "100, 100, 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "times"),
    [
        (("algorithm=ddg",), 1.0),
        (("algorithm=asgd", "run.compute_processes=2"), 2.0),
        (("algorithm=bp", "run.compute_processes=2"), 1.0),
        (("algorithm=asgd", "cluster=processes", "cluster.workers=3"), 3.0),
        (("algorithm=bp", "cluster=processes"), 1.0),
        # The first module has 64 x 32 multiply-adds, the second 32 x 10.
        (("algorithm=ddg", "cluster=processes"), (64 * 32 + 32 * 10) / (64 * 32)),
        (("algorithm=ddg", "run.compute_processes=2"), (64 * 32 + 32 * 10) / (64 * 32)),
    ],
)
def test_workers_side_by_side(overrides: tuple[str, ...], times: float):
    components = build.build_run(compose(*overrides, "model=mlp", "model.widths=[32]"))
    assert estimate.side_by_side(components) == pytest.approx(times)


def test_processes_that_would_pay_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(estimate, "paying_count", lambda components: 2)
    estimate.show(build.build_run(compose("algorithm=asgd", "model=linear", "cluster.workers=3")))
    assert "one process; run.compute_processes=2 has the same bits in less" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("algorithm", "each", "shared"),
    [
        # Weights, gradient, pulled and pushed; five messages of pull and push, and a method's states of three workers.
        ("asgd", 4 * 650, 6 * 2 * 650),
        ("local_sgd", 4 * 650 + 3 * 650, 6 * 2 * 650 + 3 * 650),
        ("ssgd", 4 * 650 + 650, 6 * 2 * 650 + 650),
    ],
)
def test_processes_on_gpus_are_estimated(algorithm: str, each: int, shared: int, monkeypatch: pytest.MonkeyPatch):
    given = (f"algorithm={algorithm}", "model=linear", "cluster.workers=3", "run.compute_processes=2")
    components = build.build_run(compose(*given))
    costs = topology_of(type(components.method)).measure_costs(components)
    assert not list(estimate._process_rows(components, costs, 100))
    components.device, components.cfg.run.device = torch.device("cuda", 0), "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    rows = dict(estimate._process_rows(components, costs, 2**20))
    assert rows == {
        "each compute process, on its GPU": f"{1 + 4 * each / 2**20:.1f} MiB, and a CUDA context",
        "page-locked CPU memory": f"up to {4 * shared / 2**20:.1f} MiB",
    }
    assert estimate._where(components) == "2 processes on 1 GPU(s)"
    assert estimate.side_by_side(components) == 1.0, "nobody knows what the second one gains"
