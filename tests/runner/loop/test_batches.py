import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.loop.batches import Batches, relative_size

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


def test_pieces_say_whose_they_are():
    batches = Batches(samples=20, size=7, seed=0, epochs=1)
    assert [(share.number, share.piece, share.size) for share in batches.shares(1, 3)] == [
        (1, 0, 3),
        (1, 1, 2),
        (1, 2, 2),
    ]
    assert (batches.batch(2).piece, batches.batch(2).size) == (0, 6)
    drawn = Batches(samples=20, size=7, seed=0, epochs=1, shards=2).shares(0, 2)
    assert [(share.piece, share.size) for share in drawn] == [(0, 4), (1, 3)]


def test_independent_draws_come_from_all():
    batches = Batches(samples=9, size=2000, seed=1, epochs=1, replacement=True)
    assert len(batches.batch(0).ids) == 9, "as many as the batch of a pass has"
    drawn = torch.cat([batches.batch(number).ids for number in range(2000)])
    counts = torch.bincount(drawn, minlength=9)
    torch.testing.assert_close(counts / counts.sum(), torch.full((9,), 1 / 9), atol=0.01, rtol=0)
    # A pass of nine draws has nine different samples once in a thousand passes, 9!/9^9.
    whole = [len(set(pass_)) for pass_ in drawn.view(-1, 9).tolist()].count(9)
    assert whole < 10
    batches = Batches(samples=20, size=7, seed=0, epochs=2, replacement=True)
    assert [(batch.epoch, batch.size, len(batch.ids)) for batch in map(batches.batch, range(6))] == [
        *((0, 7, 7), (0, 7, 7), (0, 6, 6)),
        *((1, 7, 7), (1, 7, 7), (1, 6, 6)),
    ]
    assert torch.equal(torch.cat([share.ids for share in batches.shares(1, 3)]), batches.batch(1).ids)


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


def test_shards_of_barriers_are_apart():
    batches = Batches(samples=10, size=2, seed=0, epochs=4)
    shards = [batches.shard(worker, 3, following) for following in (0, 1, 5, 12) for worker in range(3)]
    # Dropout has a stream for each number, augmentation for each epoch.
    assert len({shard.number for shard in shards}) == 12
    assert all(shard.number < 0 for shard in shards)
    assert [shard.epoch for shard in shards[::3]] == [0, 0, 1, 2]
    assert [shard.ids.tolist() for shard in shards[:3]] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize(("own", "samples", "size"), [(2, 6, 1.0), (1, 1, 3.0), (0, 1, 0.0), (2, 5, 1.2)])
def test_sizes_are_relative_to_an_equal_cut(own: int, samples: int, size: float):
    assert relative_size(own, samples, 3) == size
