import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.loop.batches import Batches, Leases, relative_size

sizes = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))


@given(sizes=sizes, epochs=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_epoch_has_every_sample_exactly_once(sizes: tuple[int, int, int], epochs: int):
    samples, size, seed = sizes
    batches = Batches(samples=samples, size=size, seed=seed, epochs=epochs)
    assert len(batches) == epochs * math.ceil(samples / size)
    drawn: list[list[int]] = [[] for _ in range(epochs)]
    for number in range(len(batches)):
        batch = batches.batch(number)
        assert batch.number == number
        assert len(batch.ids) == size or (number + 1) % batches.per_epoch == 0
        drawn[batch.epoch] += batch.ids.tolist()
    assert all(sorted(ids) == list(range(samples)) for ids in drawn)


@given(sizes=sizes, workers=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_shares_are_nearly_equal(sizes: tuple[int, int, int], workers: int):
    samples, size, seed = sizes
    batches = Batches(samples=samples, size=size, seed=seed, epochs=1)
    for number in range(len(batches)):
        shares = batches.shares(number, workers)
        lengths = [len(share.ids) for share in shares]
        assert len(shares) == workers
        assert max(lengths) - min(lengths) <= 1
        assert torch.equal(torch.cat([share.ids for share in shares]), batches.batch(number).ids)


def test_order_depends_on_seed_and_epoch():
    batches = Batches(samples=50, size=50, seed=0, epochs=2)
    first, second = batches.batch(0).ids, batches.batch(1).ids
    assert not torch.equal(first, second)
    assert torch.equal(batches.batch(0).ids, first)
    assert torch.equal(Batches(samples=50, size=50, seed=0, epochs=9).batch(1).ids, second)
    assert not torch.equal(Batches(samples=50, size=50, seed=1, epochs=2).batch(0).ids, first)
    small = Batches(samples=50, size=7, seed=0, epochs=2)
    assert torch.equal(torch.cat([small.batch(i).ids for i in range(8)]), first)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, 10), (0.25, 3), (0.3, 3), (0.1 + 0.2, 3), (0.301, 4), (1.5, 15), (1.51, 16), (0.001, 1), (2 + 1e-9, 20)],
)
def test_fractional_epochs_end_with_whole_batches(epochs: float, expected: int):
    assert len(Batches(samples=100, size=10, seed=0, epochs=epochs)) == expected


@given(
    moves=st.lists(st.tuples(st.sampled_from(["pull", "done", "lost"]), st.integers(0, 3)), max_size=80),
    samples=st.integers(1, 30),
    save_at=st.integers(0, 80),
)
@settings(max_examples=150, deadline=None)
def test_every_batch_is_done_once(moves: list[tuple[str, int]], samples: int, save_at: int):
    batches = Batches(samples=samples, size=4, seed=0, epochs=2)
    leases = Leases(batches)
    done: Counter[int] = Counter()
    for position, (move, worker) in enumerate(moves):
        if position == save_at:
            state = leases.state_dict()
            leases = Leases(batches)
            leases.load_state_dict(state)
        if move == "pull" and worker not in leases.held:
            batch = leases.lease(worker)
            assert batch is None or leases.held[worker] == batch.number
        elif move == "done" and worker in leases.held:
            done[leases.done(worker).number] += 1
        elif move == "lost":
            leases.release(worker)
            assert worker not in leases.held
        places = [*leases.held.values(), *leases.returned, *done.elements(), *range(leases.next, len(batches))]
        assert sorted(places) == list(range(len(batches)))
        assert leases.finished == (len(done) == len(batches))
    for worker in list(leases.held):
        leases.release(worker)
    while (batch := leases.lease(9)) is not None:
        done[leases.done(9).number] += 1
        assert batch.number in done
    assert leases.finished
    assert done == Counter(range(len(batches)))


def test_returned_batches_go_first():
    leases = Leases(Batches(samples=12, size=4, seed=0, epochs=1))
    held = [leases.lease(worker) for worker in (0, 1)]
    assert [batch and batch.number for batch in held] == [0, 1]
    leases.release(0)
    assert [leases.lease(worker) is not None and leases.held[worker] for worker in (2, 3)] == [0, 2]
    assert leases.lease(4) is None
    assert not leases.finished


def test_lost_batches_return_in_order():
    leases = Leases(Batches(samples=16, size=4, seed=0, epochs=1))
    for worker in (0, 1, 2):
        leases.lease(worker)
    leases.release(0)
    leases.release(1)
    assert [batch.number for worker in (3, 4, 5) if (batch := leases.lease(worker))] == [0, 1, 3]


def test_restart_takes_back_every_batch():
    leases = Leases(Batches(samples=16, size=4, seed=0, epochs=1))
    leases.lease(0)
    leases.lease(1)
    leases.release(0)
    leases.restart()
    assert (sorted(leases.returned), leases.held, leases.gone) == ([0, 1], {}, set())


def test_no_barrier_after_the_last_batch():
    leases = Leases(Batches(samples=8, size=4, seed=0, epochs=1))
    for quota, last in ((1, False), (2, True)):
        leases.quota = quota
        assert leases.lease(0) is not None
        assert leases.lease(1) is None
        assert not leases.at_barrier, "a batch is still out"
        leases.done(0)
        assert (leases.at_barrier, leases.finished) == (not last, last)


def test_shards_of_barriers_are_apart():
    batches = Batches(samples=10, size=2, seed=0, epochs=4)
    shards = [batches.shard(worker, 3, following) for following in (0, 1, 5, 12) for worker in range(3)]
    # Dropout has a stream for each number, augmentation for each epoch.
    assert len({shard.number for shard in shards}) == 12
    assert all(shard.number < 0 for shard in shards)
    assert [shard.epoch for shard in shards[::3]] == [0, 0, 1, 2]
    assert [shard.ids.tolist() for shard in shards[:3]] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_a_state_is_a_copy():
    leases = Leases(Batches(samples=12, size=4, seed=0, epochs=1))
    leases.lease(0)
    state = leases.state_dict()
    leases.lease(1)
    leases.release(0)
    assert (state["next"], state["held"], state["returned"]) == (1, {0: 0}, [])


def test_idle_workers_wake_for_returned_batches():
    leases = Leases(Batches(samples=8, size=4, seed=0, epochs=1))
    assert [leases.lease(worker) is None for worker in (0, 1, 3, 2)] == [False, False, True, True]
    assert leases.release(0) == [2], "one batch came back; the smallest number asks first"
    assert leases.release(3) == [2], "it is still there"


def test_lost_workers_wake_nobody_with_nothing():
    leases = Leases(Batches(samples=4, size=4, seed=0, epochs=1))
    leases.lease(0)
    leases.lease(1)
    assert leases.release(2) == []


@pytest.mark.parametrize(("own", "samples", "size"), [(2, 6, 1.0), (1, 1, 3.0), (0, 1, 0.0), (2, 5, 1.2)])
def test_sizes_are_relative_to_an_equal_cut(own: int, samples: int, size: float):
    assert relative_size(own, samples, 3) == size
