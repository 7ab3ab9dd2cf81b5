from typing import Any

import pytest

from runner.train import advise, build
from runner.train.advise_server import ServerAdvice
from runner.train.executors import topology_of
from tests.trial import compose

LINEAR = ("model=linear", "dataset.limit_train=1200", "dataset.limit_test=20", "run.batch_size=4", "run.epochs=20")
SLOW = ("cluster.network.latency=0.1", "cluster.network.bandwidth=1e4", "cluster.network.server_seconds=0.05")
CONSTANT = ("cluster.compute.distribution=constant", "cluster.compute.seconds=1")
BYTES = 2600  # of the linear model: 650 weights


def advice(*overrides: str, **own: Any) -> ServerAdvice:
    return ServerAdvice(
        compose(*CONSTANT, *overrides), **{"workers": 2, "pulled": 0, "pushed": 0, "gradients": 1.0, **own}
    )


def test_a_round_by_hand():
    told = advice(*SLOW, pulled=1000, pushed=4000)
    # 0.1 + 0.1 for the pull, 0.1 + 0.4 for the push, and the server's.
    assert told.overhead == pytest.approx(0.2 + 0.5 + 0.05)
    assert told.pushes([1.0] * 4) == pytest.approx(4 / 1.75)
    assert told.most_workers([1.0]) == 35
    assert told.pushes([1.0] * 40) == pytest.approx(20)
    assert advice(pulled=1000).most_workers([1.0]) is None


@pytest.mark.parametrize("workers", [1, 4, 60])
def test_the_virtual_clock_agrees(workers: int):
    given = (*LINEAR, *SLOW, *CONSTANT, f"cluster.workers={workers}", "run.timing_only=true")
    components = build.build_run(compose("algorithm=asgd", *given))
    run = topology_of(type(components.method)).time(components)
    while not run.finished:
        run.advance(1e9, 10_000)
    told = advice(*SLOW, pulled=BYTES, pushed=BYTES)
    # A few per cent are the run's beginning and end.
    assert run.updates / run.seconds == pytest.approx(told.pushes(told.computing(workers)), rel=0.05)
    assert run.timeline.staleness_mean == pytest.approx(workers - 1, rel=0.05)


def test_each_workers_speed_counts():
    told = advice("cluster.workers=2", "cluster.compute.speeds=[1,0.5]", gradients=2.0)
    assert told.computing(2) == [2.0, 4.0]
    assert told.pushes(told.computing(2)) == pytest.approx(1 / 2 + 1 / 4)


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [("asgd", ("t_pull", "t_push", "the server is busy")), ("hogwild", ("t_read", "t_write"))],
)
def test_tables_tell_what_messages_cost(algorithm: str, words: tuple[str, ...], capsys: pytest.CaptureFixture):
    given = (f"algorithm={algorithm}", "model=linear", "cluster.workers=6")
    assert advise.show(build.build_run(compose(*given, "cluster.network.bandwidth=1e4"))) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    found = {row[0]: row for row in rows if row[0].isdigit()}
    assert list(found) == ["1", "2", "4", "6", "8", "16", "32"]
    assert found["6"][4] == "5"
    assert 0 < int(found["6"][2].removesuffix(" %")) < 100
    # A network without seconds has nothing to tell by number of workers.
    assert advise.show(build.build_run(compose(*given))) == 0
    out = capsys.readouterr().out
    assert "Messages take no time here" in out
    assert "%" not in out


def test_processes_measure_a_gradient(capsys: pytest.CaptureFixture):
    given = ("algorithm=asgd", "model=linear", "cluster=processes", "cluster.network.latency=0.1")
    assert advise.show(build.build_run(compose(*given))) == 0
    assert "s (measured, a worker alone)" in capsys.readouterr().out


def test_speeds_of_the_algorithms_own_workers_are_told(capsys: pytest.CaptureFixture):
    given = ("algorithm=asgd", "model=linear", "cluster.compute.speeds=[1,1,1,0.5]", "cluster.network.latency=0.1")
    assert advise.show(build.build_run(compose(*given))) == 0
    assert "mean staleness" in capsys.readouterr().out
