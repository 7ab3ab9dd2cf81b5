"""Ranks on separate hosts: they find each other, and name the one that is gone."""

import signal
import time
from pathlib import Path

import pytest
from machine_ranks import ENDLESS, Ranks

from tests.hosts import hosts
from tests.trial import rows

TIMEOUT = 5
SLACK = 3
"""Seconds after `cluster.timeout`: one on an idle machine, and what a busy one adds."""
LOST = f"cluster.timeout={TIMEOUT}"


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd", "ddg"])
def test_two_hosts_finish_a_run(algorithm: str, tmp_path: Path):
    with hosts(2) as (a, b):
        ranks = Ranks(tmp_path, [a, a, b, b], f"algorithm={algorithm}", "model.widths=[8,8,8]")
        assert ranks.end() == dict.fromkeys(range(4), 0), ranks.all_said()
        assert (ranks.summary["status"], ranks.summary["workers_lost"]) == ("completed", 0)
        assert ranks.all_said() == []


@pytest.mark.slow
def test_a_collective_names_the_host_that_is_cut_off(tmp_path: Path):
    with hosts(2) as (a, b):
        ranks = Ranks(tmp_path, [a, a, b, b], "algorithm=ssgd", *ENDLESS, LOST)
        ranks.training(10)
        b.cut()
        since = time.monotonic()
        assert ranks.end() == dict.fromkeys(range(4), 3)
    assert max(ranks.ended.values()) - since < TIMEOUT + SLACK
    said = [line for rank in (0, 1) for line in ranks.said(rank)]
    assert len(said) == 1, said
    for rank in (2, 3):
        assert (
            f"worker {rank} (rank {rank}, host b, pid {ranks.processes[rank].pid}) is stuck or out of reach" in said[0]
        )
    assert "its last step was number" in said[0]
    # On the other side one rank speaks, of rank 0.
    said = [line for rank in (2, 3) for line in ranks.said(rank)]
    assert len(said) == 1, said
    assert "worker 0 (rank 0, host a, pid" in said[0]
    assert ranks.summary["status"] == "interrupted"
    assert "host b" in ranks.summary["error"]


@pytest.mark.slow
def test_a_server_goes_on_without_the_host_that_is_cut_off(tmp_path: Path):
    with hosts(2) as (a, b):
        ranks = Ranks(tmp_path, [a, a, b, b], "algorithm=asgd", *ENDLESS, "run.epochs=40", LOST)
        ranks.training(10)
        b.cut()
        since = time.monotonic()
        codes = ranks.end()
    assert codes == {0: 0, 1: 0, 2: 3, 3: 3}, ranks.all_said()
    assert max(ranks.ended[2], ranks.ended[3]) - since < TIMEOUT + SLACK
    assert (ranks.summary["status"], ranks.summary["workers_lost"]) == ("completed", 2)
    lost = [line for line in ranks.said(0) if line.startswith("WARNING")]
    assert len(lost) == 2
    assert all("host b" in line for line in lost)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd", "ddg"])
def test_a_wire_that_is_mended_in_time_changes_nothing(algorithm: str, tmp_path: Path):
    settings = (f"algorithm={algorithm}", *ENDLESS, "run.epochs=20", "model.widths=[8,8,8]", "cluster.timeout=10")
    with hosts(2) as (a, b):
        ranks = Ranks(tmp_path, [a, a, b, b], *settings)
        ranks.training(10)
        b.cut()
        time.sleep(4)
        b.mend()
        assert ranks.end() == dict.fromkeys(range(4), 0), ranks.all_said()
    assert ranks.all_said() == []
    assert (ranks.summary["status"], ranks.summary["workers_lost"]) == ("completed", 0)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd", "ddg"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_rank_0_is_named_by_the_others(algorithm: str, number: signal.Signals, tmp_path: Path):
    with hosts(2) as (a, b):
        settings = (f"algorithm={algorithm}", *ENDLESS, "model.widths=[8,8,8]", LOST)
        ranks = Ranks(tmp_path, [a, a, b, b], *settings)
        ranks.training(10)
        ranks.kill(0, number=number)
        since = time.monotonic()
        codes = ranks.end()
    assert codes == {0: -9, 1: 3, 2: 3, 3: 3}
    assert max(ranks.ended.values()) - since < TIMEOUT + SLACK
    said = ranks.all_said()
    assert len(said) == 2, said
    assert all("(rank 0, host a, pid" in line for line in said)
    assert ranks.summary["status"] == "interrupted"
    assert "rank 0" in ranks.summary["error"]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asgd", "ssgd"])
def test_rank_0_alone_sees_the_run_folder(algorithm: str, tmp_path: Path):
    """A stopped run is continued, and a finished one only shown; the others are told what is in the folder."""
    with hosts(2) as (a, b):
        settings = (f"algorithm={algorithm}", *ENDLESS, "run.epochs=30", LOST)
        ranks = Ranks(tmp_path, [a, b], *settings, apart=True)
        folder = tmp_path / "a" / "run"
        ranks.until(lambda: rows(folder) > 3, "evaluations")
        ranks.kill(0, number=signal.SIGTERM)
        assert ranks.end() == {0: 143, 1: 0}, ranks.all_said()
        for _ in range(2):
            ranks = Ranks(tmp_path, [a, b], "run.resume=run", apart=True)
            assert ranks.end() == {0: 0, 1: 0}, ranks.all_said()
    assert rows(folder) == 30
    assert not (tmp_path / "b" / "run").exists()


@pytest.mark.slow
def test_who_does_not_come_is_named(tmp_path: Path):
    with hosts(2) as (a, b):
        ranks = Ranks(tmp_path, [a, a, b, b], "algorithm=asgd", LOST, only=(0, 1))
        assert ranks.end() == {0: 3, 1: 3}
        [said] = ranks.all_said()
        assert "worker 1 (rank 2), worker 2 (rank 3) did not come within 5 s (cluster.timeout)" in said
        assert ranks.summary["status"] == "interrupted"
        assert "worker 1 (rank 2)" in ranks.summary["error"]
        ranks = Ranks(tmp_path, [a, a, b, b], "algorithm=asgd", LOST, only=(2, 3))
        assert ranks.end() == {2: 3, 3: 3}
        [said] = ranks.all_said()
        assert "MASTER_ADDR=10.77.0.1 MASTER_PORT=29511: no answer within 5 s (cluster.timeout)" in said


@pytest.mark.slow
def test_wrong_input_is_told_on_every_host(tmp_path: Path):
    with hosts(2) as (a, b):
        ranks = Ranks(tmp_path, [a, a, b, b], "algorithm=ssgd", "run.batch_size=100000")
        assert ranks.end() == dict.fromkeys(range(4), 2)
    assert [len([line for rank in pair for line in ranks.said(rank)]) for pair in ((0, 1), (2, 3))] == [1, 1]
    assert "run.batch_size=100000" in ranks.said(0)[0]
    assert f"worker 0 (rank 0, host a, pid {ranks.processes[0].pid}) ended with exit code 2" in ranks.said(2)[0]


@pytest.mark.slow
def test_shared_memory_is_refused_across_hosts(tmp_path: Path):
    with hosts(2) as (a, b):
        ranks = Ranks(tmp_path, [a, a, b, b], "algorithm=hogwild")
        assert ranks.end() == dict.fromkeys(range(4), 2)
        said = "dcrun: algorithm=hogwild: the launcher started 4 processes, 2 of them here; "
        assert [line.startswith(said) for line in ranks.said(0)] == [True]
        assert (ranks.said(1), len(ranks.said(2)), ranks.said(3)) == ([], 1, [])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_wire_is_cut_inside_a_large_message(tmp_path: Path):
    """25 MB that take a second on the wire; the server goes on, and a round of a collective ends."""
    large = ("model.widths=[3000,2000]", "run.batch_size=96", "dataset.train=1440", "run.epochs=5000", LOST)
    with hosts(2) as (a, b):
        b.slow_down("200mbit")
        for algorithm, codes in (("asgd", {0: 0, 1: 0, 2: 3}), ("ssgd", dict.fromkeys(range(3), 3))):
            folder = tmp_path / algorithm
            folder.mkdir()
            epochs = ("run.epochs=3",) if algorithm == "asgd" else ()
            ranks = Ranks(folder, [a, a, b], f"algorithm={algorithm}", *large, *epochs)
            ranks.until(lambda folder=folder: (folder / "run" / "timeline.jsonl").exists(), "training")
            time.sleep(0.5)
            b.cut()
            since = time.monotonic()
            assert ranks.end(100) == codes, ranks.all_said()
            assert ranks.ended[2] - since < TIMEOUT + SLACK
            if algorithm == "ssgd":
                assert max(ranks.ended.values()) - since < TIMEOUT + SLACK
            assert "host b" in "".join(ranks.said(0))
            b.mend()


@pytest.mark.slow
@pytest.mark.parametrize(("algorithm", "codes"), [("asgd", [0, 0]), ("ssgd", [3, 3]), ("ddg", [3, 3])])
def test_one_host_of_three_dies(algorithm: str, codes: list[int], tmp_path: Path):
    with hosts(3) as (a, b, c):
        settings = (f"algorithm={algorithm}", *ENDLESS, "model.widths=[8,8,8]", LOST)
        epochs = ("run.epochs=60",) if algorithm == "asgd" else ()
        ranks = Ranks(tmp_path, [a, b, c, c], *settings, *epochs)
        ranks.training(10)
        ranks.kill(2, 3)
        ended = ranks.end()
    assert [ended[0], ended[1]] == codes, ranks.all_said()
    assert "host c, pid" in "".join(ranks.said(0))
    # The run stops on host b too, whose terminal has no rank 0 to say why; a server's workers go on.
    assert [("host c, pid" in line) for line in ranks.said(1)] == ([] if algorithm == "asgd" else [True])
    assert ranks.summary["status"] == ("completed" if algorithm == "asgd" else "interrupted")


@pytest.mark.slow
def test_a_server_that_is_cut_off_goes_on_with_what_it_has(tmp_path: Path):
    with hosts(3) as (a, b, c):
        ranks = Ranks(tmp_path, [a, a, b, c], "algorithm=asgd", *ENDLESS, "run.epochs=40", LOST)
        ranks.training(5)
        a.cut()
        since = time.monotonic()
        assert ranks.end() == {0: 0, 1: 0, 2: 3, 3: 3}
    assert max(ranks.ended[2], ranks.ended[3]) - since < TIMEOUT + SLACK
    for rank in (2, 3):
        [said] = ranks.said(rank)
        assert "server (rank 0, host a, pid" in said
    assert ranks.summary["workers_lost"] == 2
