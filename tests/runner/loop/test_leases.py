"""Every batch is done once, whoever is lost, and nobody passes a barrier."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.loop.batches import Batches
from runner.loop.leases import Leases


@given(
    moves=st.lists(st.tuples(st.sampled_from(["pull", "done", "lost"]), st.integers(0, 3)), max_size=80),
    samples=st.integers(1, 30),
    save_at=st.integers(0, 80),
    steps=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_every_batch_is_done_once(moves: list[tuple[str, int]], samples: int, save_at: int, steps: int):
    batches = Batches(samples=samples, size=4, seed=0, epochs=2)
    leases = Leases(batches)
    done: Counter[int] = Counter()
    for position, (move, worker) in enumerate(moves):
        if position == save_at:
            state = leases.state_dict()
            leases = Leases(batches)
            leases.load_state_dict(state)
        if move == "pull" and worker not in leases.held:
            leased = leases.lease(worker, steps)
            assert len(leased) <= steps
            assert [batch.step for batch in leased] == list(range(len(leased)))
            assert not leased or leases.held[worker] == [batch.number for batch in leased]
        elif move == "done" and worker in leases.held:
            done.update(batch.number for batch in leases.done(worker))
        elif move == "lost":
            leases.release(worker)
            assert worker not in leases.held
        held = [number for numbers in leases.held.values() for number in numbers]
        places = [*held, *leases.returned, *done.elements(), *range(leases.next, len(batches))]
        assert sorted(places) == list(range(len(batches)))
        assert leases.finished == (len(done) == len(batches))
    for worker in list(leases.held):
        leases.release(worker)
    while leased := leases.lease(9, steps):
        done.update(batch.number for batch in leases.done(9))
        assert all(batch.number in done for batch in leased)
    assert leases.finished
    assert done == Counter(range(len(batches)))


def test_returned_batches_go_first():
    leases = Leases(Batches(samples=12, size=4, seed=0, epochs=1))
    held = [leases.lease(worker) for worker in (0, 1)]
    assert [[batch.number for batch in batches] for batches in held] == [[0], [1]]
    leases.release(0)
    assert [leases.lease(worker) and leases.held[worker] for worker in (2, 3)] == [[0], [2]]
    assert leases.lease(4) == []
    assert not leases.finished


def test_lost_batches_return_in_order():
    leases = Leases(Batches(samples=16, size=4, seed=0, epochs=1))
    for worker in (0, 1, 2):
        leases.lease(worker)
    leases.release(0)
    leases.release(1)
    assert [batch.number for worker in (3, 4, 5) for batch in leases.lease(worker)] == [0, 1, 3]


def test_steps_on_several_batches_by_hand():
    """Five batches, three steps a pull: what was returned comes first, and the last lease has what is left."""
    leases = Leases(Batches(samples=20, size=4, seed=0, epochs=1))
    assert [batch.number for batch in leases.lease(0, 3)] == [0, 1, 2]
    assert [(batch.number, batch.step) for batch in leases.lease(1, 3)] == [(3, 0), (4, 1)]
    assert leases.lease(2, 3) == []
    assert leases.release(1) == [2]
    leases.release(0)
    assert [(batch.number, batch.step) for batch in leases.lease(2, 3)] == [(3, 0), (4, 1), (0, 2)]
    leases.quota = 4
    leases.done(2)
    assert [batch.number for batch in leases.lease(2, 3)] == [1], "a barrier comes after the fourth"


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
        assert leases.lease(0)
        assert not leases.lease(1)
        assert not leases.at_barrier, "a batch is still out"
        leases.done(0)
        assert (leases.at_barrier, leases.finished) == (not last, last)


def test_a_state_is_a_copy():
    leases = Leases(Batches(samples=12, size=4, seed=0, epochs=1))
    leases.lease(0)
    state = leases.state_dict()
    leases.lease(1)
    leases.release(0)
    assert (state["next"], state["held"], state["returned"]) == (1, {0: [0]}, [])


def test_idle_workers_wake_for_returned_batches():
    leases = Leases(Batches(samples=8, size=4, seed=0, epochs=1))
    assert [len(leases.lease(worker)) for worker in (0, 1, 3, 2)] == [1, 1, 0, 0]
    assert leases.release(0) == [2], "one batch came back; the smallest number asks first"
    assert leases.release(3) == [2], "it is still there"


def test_lost_workers_wake_nobody_with_nothing():
    leases = Leases(Batches(samples=4, size=4, seed=0, epochs=1))
    leases.lease(0)
    leases.lease(1)
    assert leases.release(2) == []
