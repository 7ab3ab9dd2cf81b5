import numpy as np
import pytest

from runner.config.seeds import derive
from runner.loop.philox import KEPT, BlockDraws, philox

KEY = np.random.Philox(key=derive(3, "clock")).state["state"]["key"]


def generator(*counter: int) -> np.random.Generator:
    """NumPy's own, set to a counter."""
    bits = np.random.Philox(key=derive(3, "clock"))
    state = bits.state
    state["state"]["counter"][:] = counter
    bits.state = state
    return np.random.Generator(bits)


@pytest.mark.parametrize("counter", [(0, 0, 0, 0), (0, 2, 9999, 10**12), (5, 2**63, 2**64 - 1, 1)])
def test_words_are_those_of_numpy(counter: tuple[int, ...]):
    one, two, three, four = (np.array([word], dtype=np.uint64) for word in (counter[0] + 1, *counter[1:]))
    expected = generator(*counter).bit_generator.random_raw(4)
    assert [int(word[0]) for word in philox(KEY, (one, two, three, four))] == expected.tolist()


@pytest.mark.parametrize("workers", [1, 3, 600])
def test_draws_are_those_of_numpy(workers: int):
    draws = BlockDraws(KEY, 1, workers, lambda a, b: np.where(a < 0.5, 2.0 + 3.0 * b, 0.0))
    for worker in {0, workers // 2, workers - 1}:
        for task in (0, 1, 4097, 70_000):
            own = generator(0, 1, worker, task)
            assert draws.at(worker, task) == (own.uniform(2.0, 5.0) if own.random() < 0.5 else 0.0)


def test_all_workers_at_once_have_their_own():
    draws = BlockDraws(KEY, 0, 600, lambda a, b: a)
    assert draws.all_at(17).tolist() == [draws.at(worker, 17) for worker in range(600)]


def test_some_workers_at_once_have_their_own():
    draws, workers, tasks = (
        BlockDraws(KEY, 0, 600, lambda a, b: a),
        np.array([3, 599, 255, 256, 3]),
        np.array([0, 40, 7, 7, 90]),
    )
    assert draws.many_at(workers, tasks).tolist() == [
        draws.at(*pair) for pair in zip(workers.tolist(), tasks.tolist(), strict=True)
    ]


def test_block_that_was_dropped_comes_again():
    draws, again = (BlockDraws(KEY, 0, 2, lambda a, b: a) for _ in range(2))
    asked = [block * 4096 for block in range(KEPT + 2)]
    first = [draws.at(0, task) for task in asked]
    assert [draws.at(0, task) for task in asked] == first == [again.at(1 - 1, task) for task in reversed(asked)][::-1]
    assert len(draws._blocks[0]) == KEPT
