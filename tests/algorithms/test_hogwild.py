from pathlib import Path

import pytest

from tests.trial import equal, train

RUN = ("dataset.limit_train=70", "dataset.limit_test=50", "run.epochs=2", "schedule.lr=0.05", "run.batch_size=16")


@pytest.mark.parametrize("model", ["mlp", "resnet8"])
@pytest.mark.parametrize("decay", ["algorithm.weight_decay=0", "algorithm.weight_decay=0.05"])
def test_one_worker_writing_all_is_sgd(model: str, decay: str, tmp_path: Path):
    overrides = (f"model={model}", decay, *RUN)
    one = train("algorithm=hogwild", "cluster.workers=1", "cluster.network.bandwidth=1e6", *overrides, folder=tmp_path)
    reference = train("algorithm=sgd", *overrides, folder=tmp_path)
    assert equal(one.weights, reference.weights)
    assert one.control.updates == reference.control.updates == 10


def test_whole_reads_and_writes_are_asgd(tmp_path: Path):
    cluster = ("cluster.workers=4", "cluster.compute.distribution=gamma", "cluster.stragglers.probability=0.2")
    overrides = ("model=resnet8", "algorithm.weight_decay=0", *cluster, *RUN)
    shared = train("algorithm=hogwild", *overrides, folder=tmp_path)
    server = train("algorithm=asgd", *overrides, folder=tmp_path)
    assert equal(shared.weights, server.weights)
    assert shared.notes.rows == server.notes.rows
    assert shared.notes.rows[-1]["staleness_mean"] > 0


def test_slow_reads_and_writes_change_weights(tmp_path: Path):
    overrides = ("algorithm=hogwild", "model=mlp", "cluster.compute.distribution=gamma", *RUN)
    whole = train(*overrides, folder=tmp_path)
    torn = train(*overrides, "cluster.network.bandwidth=3e4", folder=tmp_path)
    assert not equal(whole.weights, torn.weights)
    assert torn.control.seconds > whole.control.seconds


def test_few_coordinates_are_written(tmp_path: Path):
    start = train("algorithm=hogwild", "model=mlp", *RUN, "schedule.lr=1e-30", folder=tmp_path)
    few = train("algorithm=hogwild", "model=mlp", "algorithm.coordinates=5", *RUN, folder=tmp_path)
    changed = (few.executor.weights() != start.executor.weights()).sum()
    assert 0 < changed <= 5 * few.control.updates
