from pathlib import Path

from tests.trial import conduct

RUN = (
    "model=resnet8",
    "dataset.limit_train=70",
    "dataset.limit_test=20",
    "dataset.augment=true",
    "run.batch_size=16",
    "run.epochs=2",
    "algorithm.momentum=0.9",
    "algorithm.weight_decay=0.01",
)


def test_one_worker_process_is_sequential_sgd_to_the_bit(tmp_path: Path):
    code, real = conduct(tmp_path / "real", "algorithm=dc_asgd_a", "cluster=processes", "cluster.workers=1", *RUN)
    sequential = conduct(tmp_path / "sequential", "algorithm=sgd", *RUN)[1]
    assert (code, real["status"]) == (0, "completed")
    for key in ("weights_sha256", "buffers_sha256", "updates", "samples", "final_test_error"):
        assert real[key] == sequential[key], key
