"""A run with a profile is the same run, and its seconds add up."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from runner.processes.rendezvous import Rendezvous
from runner.run_folder.profile import EVALUATION, GRADIENTS, LOGGING, REST, UPDATE, ProfiledCall
from runner.train import profiling
from runner.train.build import build_run
from runner.train.profiling import RankProfile, gather
from tests.trial import Trial, compose, run_in

RUN = ("model=mlp", "dataset.limit_train=32", "dataset.limit_test=8", "run.batch_size=4", "cluster.workers=2",
       "run.epochs=2")  # fmt: skip

KINDS = {"dasgd": "Collective", "fr": "Pipeline"}


@pytest.mark.parametrize(
    "given",
    [
        ("algorithm=dc_asgd_a", "cluster.record=true"),
        pytest.param(("algorithm=dc_asgd_a", "run.compute_processes=2"), marks=pytest.mark.slow),
        pytest.param(("algorithm=dasgd",), marks=pytest.mark.slow),
        pytest.param(("algorithm=shared_asysvrg", "cluster.network.latency=0.1"), marks=pytest.mark.slow),
        pytest.param(("algorithm=asysvrg",), marks=pytest.mark.slow),
        pytest.param(("algorithm=fr",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_profiled_run_has_the_same_bits(given: tuple[str, ...], tmp_path: Path):
    _, plain = run_in(tmp_path / "plain", *RUN, *given)
    code, profiled = run_in(tmp_path / "profiled", *RUN, *given, "run.profile=true")
    assert code == 0
    same = ("weights_sha256", "buffers_sha256", "seconds", "updates")
    assert {key: plain[key] for key in same} == {key: profiled[key] for key in same}
    for name in ("metrics.jsonl", "timeline.jsonl"):
        assert (tmp_path / "plain" / name).read_text() == (tmp_path / "profiled" / name).read_text()
    assert not (tmp_path / "plain" / "profile.json").exists()

    document = json.loads((tmp_path / "profiled" / "profile.json").read_text())
    seconds, total = document["otherData"]["seconds"], document["otherData"]["total"]
    assert sum(seconds.values()) == pytest.approx(total)
    assert min(seconds.values()) >= 0
    # What is left is the loop itself, and what ends the run.
    assert seconds[REST] < 0.8 * total
    assert seconds[EVALUATION] > 0
    assert seconds[LOGGING] > 0
    others = document["otherData"]["others"]
    if "run.compute_processes=2" in given:
        # What they compute is theirs, and no longer than the run.
        assert sorted(others) == ["compute process 0", "compute process 1"]
        assert all(0 < row[GRADIENTS] < total for row in others.values())
    else:
        assert seconds[GRADIENTS] > 0
        assert not others
    # The command's start and all after it, as the summary has them, but for what the table itself takes.
    assert total >= profiled["start_seconds"] + profiled["wall_seconds"] - 0.05
    for event in (event for event in document["traceEvents"] if event["ph"] == "X"):
        assert 0 <= event["ts"] <= event["ts"] + event["dur"] <= 1e6 * total + 1


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asysvrg", "dasgd", "hogwild", "fr"])
def test_profile_of_all_ranks_adds_up(algorithm: str, tmp_path: Path):
    given = (*RUN, f"algorithm={algorithm}", "cluster=processes", "cluster.workers=2", "run.profile=true")
    code, summary = run_in(tmp_path, *given)
    assert code == 0
    document = json.loads((tmp_path / "profile.json").read_text())
    seconds, total = document["otherData"]["seconds"], document["otherData"]["total"]
    assert sum(seconds.values()) == pytest.approx(total)
    assert total >= summary["start_seconds"] + summary["wall_seconds"] - 0.05
    labels = {event["name"] for event in document["traceEvents"]}
    # A server waits for its workers, who alone compute; ranks that are all alike compute each.
    assert ("Connections.next" if algorithm in ("asysvrg", "hogwild") else f"Process{KINDS[algorithm]}._send") in labels
    assert (seconds[GRADIENTS] > 0) == (algorithm in KINDS)
    others = document["otherData"]["others"]
    assert sorted(others) == (["rank 1"] if algorithm in KINDS else ["rank 1", "rank 2"])
    for row in others.values():
        assert row[GRADIENTS] > 0
        assert min(row.values()) >= 0
    assert {event["pid"] for event in document["traceEvents"]} == set(range(1 + len(others)))


def test_nothing_is_measured_without_a_profile(tmp_path: Path):
    trial = Trial(*RUN, "algorithm=asgd", folder=tmp_path).run()
    for part in (trial.control, trial.components.oracle, trial.components.batches, trial.executor):
        assert not [name for name, value in vars(part).items() if getattr(value, "__name__", "") == "measured"]


def test_rank_above_0_sends_what_it_measured(monkeypatch: pytest.MonkeyPatch):
    store: Any = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    ranks = [Rendezvous(number, 3, store, True, 5.0) for number in range(3)]
    components: Any = build_run(compose(*RUN, "algorithm=asgd", "run.profile=true"))
    worked = SimpleNamespace(work=lambda: time.sleep(0.01))
    own = RankProfile(components, ranks[1])
    own.measure_worker([ProfiledCall(worked, "work", UPDATE)])
    worked.work()
    own.send()
    # Rank 2 is lost; the others are told nevertheless.
    monkeypatch.setattr(profiling, "PATIENCE", 0.1)
    [row] = gather(components, ranks[0])
    assert row.name == "rank 1"
    assert row.seconds[UPDATE] >= 0.01


def test_ranks_of_a_run_without_profile_send_nothing():
    store: Any = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    components: Any = build_run(compose(*RUN, "algorithm=asgd"))
    own = RankProfile(components, Rendezvous(1, 2, store, True, 5.0))
    own.measure([])
    own.send()
    assert store.num_keys() == 0
    assert gather(components, Rendezvous(0, 2, store, True, 5.0)) == []
