"""A run with a profile is the same run, and its seconds add up."""

import json
from pathlib import Path

import pytest

from runner.run_folder.profile import EVALUATION, GRADIENTS, LOGGING, REST
from tests.trial import Trial, run_in

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
    if "run.compute_processes=2" not in given:
        assert seconds[GRADIENTS] > 0
    # The command's start and all after it, as the summary has them, but for what the table itself takes.
    assert total >= profiled["start_seconds"] + profiled["wall_seconds"] - 0.05
    for event in document["traceEvents"]:
        assert 0 <= event["ts"] <= event["ts"] + event["dur"] <= 1e6 * total + 1


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["asysvrg", "dasgd", "hogwild", "fr"])
def test_profile_of_rank_0_adds_up(algorithm: str, tmp_path: Path):
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


def test_nothing_is_measured_without_a_profile(tmp_path: Path):
    trial = Trial(*RUN, "algorithm=asgd", folder=tmp_path).run()
    for part in (trial.control, trial.components.oracle, trial.components.batches, trial.executor):
        assert not [name for name, value in vars(part).items() if getattr(value, "__name__", "") == "measured"]
