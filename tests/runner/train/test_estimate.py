import pytest

from runner.train import build, estimate
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
