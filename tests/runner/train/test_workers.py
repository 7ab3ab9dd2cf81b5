import pytest

from algorithms.asgd import ASGD
from algorithms.ddg import DDG
from algorithms.hogwild import Hogwild
from algorithms.method import Stateful
from algorithms.sgd import SGD
from algorithms.ssgd import SSGD
from runner.config.errors import InputError
from runner.train.workers import set_workers, update_samples, workers_of
from tests.trial import compose


@pytest.mark.parametrize(
    ("algorithm", "given", "workers"), [(ASGD, "null", 4), (DDG, "null", 2), (SGD, "null", 1), (ASGD, "7", 7)]
)
def test_own_number_unless_given(algorithm: type[Stateful], given: str, workers: int):
    assert workers_of(compose(f"cluster.workers={given}"), algorithm) == workers


def test_more_workers_than_usable():
    with pytest.raises(InputError, match=r"^cluster\.workers=2: .* runs on one worker; allowed: 1, or null$"):
        workers_of(compose("algorithm=sgd", "cluster.workers=2"), SGD)


def test_lists_name_these_workers():
    with pytest.raises(InputError, match=r"^cluster\.compute\.speeds="):
        workers_of(compose("cluster.compute.speeds=[1,2,3]", "cluster.workers=2"), ASGD)


def test_number_that_is_not_the_users():
    cfg = compose("cluster.workers=null")
    set_workers(cfg, 3, "the trace was recorded with 3")
    assert cfg.cluster.workers == 3
    set_workers(cfg, 3, "the trace was recorded with 3")
    with pytest.raises(InputError, match=r"^cluster\.workers=3: torchrun started 5 workers; allowed: 5, or null$"):
        set_workers(cfg, 5, "torchrun started 5 workers")


@pytest.mark.parametrize(("algorithm", "samples"), [(SSGD, 24), (ASGD, 8), (Hogwild, 8), (DDG, 8)])
def test_update_uses_all_workers_batches(algorithm: type[Stateful], samples: int):
    assert update_samples(compose("run.batch_size=8"), algorithm, 3) == samples
