from pathlib import Path
from typing import Any

import pytest

from algorithms.base import Collective, CommunicationSchedule
from runner.config.errors import InputError
from runner.train import advise, build, measure
from tests.trial import QuadraticOracle, Trial, compose

RUN = ("model=linear", "dataset.limit_train=640", "run.batch_size=2", "run.epochs=2", "run.eval_every=2")


def advice(*overrides: str, **measured: Any) -> advise.Advice:
    """What is said of a single weight: 4 bytes a contribution."""
    cfg = compose(*RUN, *overrides)
    method = build.build_run(cfg).method
    assert isinstance(method, Collective)
    return advise.Advice(cfg, method, weights=1, batch_size=cfg.run.batch_size, **measured)


CONSTANT = ("algorithm=dasgd", "cluster.compute.distribution=constant", "cluster.compute.seconds=2")


@pytest.mark.parametrize(
    ("bandwidth", "workers", "seconds", "delay"),
    [("null", 4, 0.0, 0), (8, 4, 2.0, 1), (8, 5, 2.5, 2), (16, 4, 1.0, 1), (2, 8, 16.0, 8), (2, 1, 0.0, 0)],
)
def test_smallest_delay_that_hides_communication(bandwidth: Any, workers: int, seconds: float, delay: int):
    """The paper's t_c = m n_p / BW against steps of two seconds; a delay of exactly t_c hides it."""
    linear = ("cluster.network.allreduce=linear", f"cluster.network.bandwidth={bandwidth}")
    told = advice(*CONSTANT, *linear)
    assert told.step_seconds(workers) == pytest.approx(2.0)
    assert told.combination_seconds(workers) == pytest.approx(seconds)
    assert told.delay(workers) == delay


def test_throughput_by_hand():
    """t_p = 2 s, t_c = 3 s, four workers with two samples each."""
    told = advice(*CONSTANT, "cluster.network.allreduce=linear", "cluster.network.latency=3")
    assert told.throughput(4, CommunicationSchedule(1, 0)) == pytest.approx((8 / 5, 2 / 5))
    assert told.throughput(4, CommunicationSchedule(4, 0)) == pytest.approx((32 / 11, 8 / 11))
    assert told.throughput(4, CommunicationSchedule(4, 1)) == pytest.approx((32 / 9, 8 / 9))
    assert told.throughput(4, CommunicationSchedule(4, 2)) == pytest.approx((4.0, 1.0))


LATE = ("algorithm=ssgd", "cluster.stragglers.probability=1", "cluster.stragglers.extra=[5,5]")


def test_share_is_one_without_communication():
    told = advice("algorithm=ssgd", "cluster.stragglers.probability=0.5", "cluster.compute.seconds=2")
    samples, share = told.throughput(8, CommunicationSchedule(1, 0))
    assert share == 1.0
    assert samples < 0.9 * 8 * 2 / told.step_seconds(8), "all wait for the slowest"


def test_acted_delays_add_to_measured_steps():
    told = advice(*LATE, "cluster=processes", measured_step=0.1)
    assert told.step_seconds(2) == pytest.approx(0.6)
    assert told.throughput(2, CommunicationSchedule(1, 0))[0] == pytest.approx(4 / 0.6)


@pytest.mark.parametrize("kind", ["ring", "linear"])
@pytest.mark.parametrize("distribution", ["constant", "uniform"])
@pytest.mark.parametrize("bandwidth", [pytest.param(4.0, marks=pytest.mark.slow), 16.0])
@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm=ssgd",),
        ("algorithm=local_sgd", "algorithm.tau=4"),
        pytest.param(("algorithm=dasgd", "algorithm.tau=4", "algorithm.delay=1"), marks=pytest.mark.slow),
        ("algorithm=dasgd", "algorithm.tau=4", "algorithm.delay=3"),
        ("algorithm=d_psgd", "algorithm.graph=complete", "algorithm.order=step_first"),
    ],
    ids=["ssgd", "local", "delay 1", "delay 3", "neighbours"],
)
def test_virtual_clock_agrees_with_the_formula(
    overrides: tuple[str, ...], bandwidth: float, distribution: str, kind: str, tmp_path: Path
):
    cluster = (
        f"cluster.network.bandwidth={bandwidth}",
        f"cluster.network.allreduce={kind}",
        f"cluster.compute.distribution={distribution}",
        "cluster.workers=8",
    )
    trial = Trial(*RUN, *overrides, *cluster, folder=tmp_path, oracle=QuadraticOracle(1.0)).run()
    measured = trial.control.samples_seen / trial.control.seconds
    method = trial.components.method
    assert isinstance(method, Collective)
    told, _ = advice(*overrides, *cluster).throughput(8, CommunicationSchedule(method.period, method.delay))
    assert told == pytest.approx(measured, rel=0.05)


def test_measured_times_take_the_place_of_models():
    told = advice("algorithm=dasgd", "cluster=processes", measured_step=0.1, measured_combination=(0.12, 2))
    assert told.step_seconds(4) == pytest.approx(0.1)
    # Two workers move 2 (2 − 1) / 2 = 1 times the bytes in a ring, four 1.5 times.
    assert told.combination_seconds(4) == pytest.approx(0.18)
    assert told.combination_seconds(1) == 0.0
    assert told.delay(4) == 2


@pytest.mark.slow
def test_two_processes_measure_a_combination():
    both = [[0, 1], [0, 1]]
    small = measure.combination_seconds(1000, both, "mean", timeout=20)
    large = measure.combination_seconds(4_000_000, both, "gather", timeout=20)
    assert 0 < small < large < 5


@pytest.mark.slow
def test_neighbours_measure_an_exchange():
    line = [[0, 1], [0, 1, 2], [1, 2]]
    small = measure.combination_seconds(1000, line, "mix", timeout=20)
    large = measure.combination_seconds(4_000_000, line, "mix", timeout=20)
    assert 0 < small < large < 5


def test_neighbours_alone_exchange():
    """A ring's worker gets two vectors whatever the number of workers, 4 bytes each at 16 a second."""
    told = advice("algorithm=d_psgd", "cluster.network.bandwidth=16")
    assert [told.combination_seconds(workers) for workers in (1, 2, 3, 8)] == [0.0, 0.25, 0.5, 0.5]
    told = advice("algorithm=d_psgd", "algorithm.graph=complete", "cluster.network.bandwidth=16")
    assert told.combination_seconds(8) == 7 * 0.25
    # Measured among three, of whom each gets two vectors; of five on the complete graph each gets four.
    measured = ("algorithm=d_psgd", "algorithm.graph=complete", "cluster=processes")
    told = advice(*measured, measured_step=0.1, measured_combination=(0.2, 3))
    assert told.combination_seconds(5) == pytest.approx(0.4)


def test_a_list_of_edges_is_of_its_own_workers_alone(capsys: pytest.CaptureFixture):
    graph = ("algorithm=d_psgd", "algorithm.graph=[[0,1],[1,2]]", "model=mlp", "cluster.network.bandwidth=1e5")
    assert advise.show(build.build_run(compose(*graph, "cluster.workers=3"))) == 0
    out = capsys.readouterr().out
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert [row for row in rows if row.isdigit()] == ["3"]


def test_tables_name_what_is_compared(capsys: pytest.CaptureFixture):
    overrides = ("algorithm=dasgd", "model=mlp", "cluster.workers=6", "cluster.network.bandwidth=1e5")
    assert advise.show(build.build_run(compose(*overrides))) == 0
    out = capsys.readouterr().out
    for text in ("t_p", "t_c", "smallest delay", "mini-batch SGD", "Local SGD", "DaSGD"):
        assert text in out
    rows = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert [row for row in rows if row.isdigit()] == ["1", "2", "4", "6", "8", "16", "32"]


def test_a_free_network_has_no_table_of_nothing(capsys: pytest.CaptureFixture):
    assert advise.show(build.build_run(compose("algorithm=dasgd", "model=mlp"))) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Combinations take no time here" in out
    assert "%" not in out


def test_pipelines_get_no_advice():
    what = r"run\.advise=true: algorithm=ddg uses modules of a network; allowed: "
    with pytest.raises(InputError, match=what):
        advise.show(build.build_run(compose("algorithm=ddg", "model=mlp")))


def test_delays_of_a_file_are_means_of_its_workers(tmp_path: Path):
    (tmp_path / "d.csv").write_text("1,2\n1,4\n")
    given = ("algorithm=ssgd", "cluster.workers=2", f"cluster.compute.delays={tmp_path / 'd.csv'}")
    told = advice(*given)
    assert told.step_seconds(2) == pytest.approx((1 + 3) / 2)
    assert told.throughput(2, CommunicationSchedule(1, 0))[0] == pytest.approx(2 * 2 / 3), "the slowest takes 3 s"
    # For other numbers of workers the file has no columns.
    assert list(advise._rows(build.build_run(compose(*RUN, *given)))) == [2]
