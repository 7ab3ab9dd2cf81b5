"""Workers with fixed shards of the training set: who draws from which, and what a shard's new owner is told."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from injection import Host, Run, host

from algorithms.base import shard_range
from runner.loop.batches import Batches
from runner.loop.leases import Leases
from runner.run_folder import checkpoint
from runner.train import build
from tests.trial import compose

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc (Linux)")

OVERRIDES = (
    *("algorithm=dis_dfsdca", "model=ridge", "dataset=synthetic", "dataset.classes=2", "dataset.shape=[12]"),
    *("dataset.noise=0.5", "dataset.train=203", "dataset.test=40", "run.batch_size=5", "schedule.lr=3e-4"),
)


def batches(shards: int | None = 3) -> Batches:
    return Batches(samples=20, size=6, seed=0, epochs=3, shards=shards)


def test_shards_cover_all_evenly():
    pieces = [shard_range(20, 3, number) for number in range(3)]
    assert [len(piece) for piece in pieces] == [7, 7, 6]
    assert [i for piece in pieces for i in piece] == list(range(20))


def test_batches_are_drawn_from_own_shards():
    leases = Leases(batches())
    for worker in (0, 1, 2, 1):
        (batch,) = leases.lease(worker)
        assert batch.pool is not None
        assert batch.pool.tolist() == list(shard_range(20, 3, worker))
        assert set(batch.ids.tolist()) <= set(batch.pool.tolist())
        assert len(batch.ids) == (2 if batch.number % 4 == 3 else 6)
        assert torch.equal(leases.done(worker)[0].ids, batch.ids)


def test_draws_are_uniform_and_independent():
    made = Batches(samples=9, size=3000, seed=1, epochs=1, shards=3)
    counts = torch.bincount(torch.cat([made.draw(number, [1]).ids for number in range(1000)]), minlength=9)
    assert counts[:3].sum() == counts[6:].sum() == 0
    torch.testing.assert_close(counts[3:6] / counts.sum(), torch.full((3,), 1 / 3), atol=0.05, rtol=0)


def test_distinct_draws_are_uniform():
    made = Batches(samples=60, size=4, seed=1, epochs=1, shards=3, replacement=False)
    draws = [made.draw(number, [1]).ids for number in range(3000)]
    assert {len(set(ids.tolist())) for ids in draws} == {4}
    counts = torch.bincount(torch.cat(draws), minlength=60)
    assert counts[:20].sum() == counts[40:].sum() == 0
    torch.testing.assert_close(counts[20:40] / counts.sum(), torch.full((20,), 1 / 20), atol=0.005, rtol=0)
    # Whole batches of a shard's size have all of it, each in an order of its own.
    whole = Batches(samples=60, size=20, seed=1, epochs=1, shards=3, replacement=False)
    first, second = whole.draw(0, [2]).ids, whole.draw(1, [2]).ids
    assert sorted(first.tolist()) == sorted(second.tolist()) == [*range(40, 60)]
    assert first.tolist() != second.tolist()


@hypothesis.given(
    samples=st.integers(1, 60),
    shards=st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
    size=st.integers(1, 60),
    seed=st.integers(0, 3),
    data=st.data(),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_distinct_draws_hold_no_sample_twice(
    samples: int, shards: list[int], size: int, seed: int, data: st.DataObject
):
    workers = data.draw(st.integers(1, samples))
    own = list(dict.fromkeys(shard % workers for shard in shards))
    # The largest that a run is let have, `check_size`.
    size = min(size, samples // workers)

    def made() -> Batches:
        return Batches(samples=samples, size=size, seed=seed, epochs=2, shards=workers, replacement=False)

    drawn = [made().draw(number, own) for number in range(len(made()))]
    again = made()
    for batch in reversed(drawn):
        assert batch.pool is not None
        ids = batch.ids.tolist()
        short = samples % size if batch.number % again.per_epoch == again.per_epoch - 1 else 0
        assert len(ids) == len(set(ids)) == batch.size == (short or size)
        assert set(ids) <= set(batch.pool.tolist())
        assert again.draw(batch.number, own).ids.tolist() == ids, "in any order of asking"
    for share in made().shares(0, workers):
        assert len(set(share.ids.tolist())) == share.size == len(share.ids)


def test_collective_shares_are_drawn_by_rank():
    made = Batches(samples=20, size=7, seed=0, epochs=2, shards=3)
    shares = made.shares(0, 3)
    assert [len(share.ids) for share in shares] == [3, 2, 2]
    for rank, share in enumerate(shares):
        assert set(share.ids.tolist()) <= set(shard_range(20, 3, rank))
    # Equal shards at other places: ranks do not draw the same places of them.
    shares = Batches(samples=300, size=60, seed=0, epochs=1, shards=3).shares(0, 3)
    places = [(share.ids - 100 * rank).tolist() for rank, share in enumerate(shares)]
    assert places[0] != places[1] != places[2] != places[0]


def test_worker_with_fewest_shards_inherits():
    leases = Leases(batches(4))
    (held,) = leases.lease(1)
    leases.release(0)
    assert leases.reassign_shards(0) == (1, [0])
    assert leases.shards == {0: [], 1: [1, 0], 2: [2], 3: [3]}
    # What it holds is what it was given before.
    assert torch.equal(leases.done(1)[0].ids, held.ids)
    (again,) = leases.lease(1)
    assert again.pool is not None
    assert again.pool.tolist() == [*shard_range(20, 4, 1), *shard_range(20, 4, 0)]
    leases.release(1)
    assert leases.reassign_shards(1) == (2, [1, 0])
    leases.release(3)
    assert leases.reassign_shards(3) == (2, [3]), "nobody else is left"
    again = Leases(batches(4))
    again.release(0)
    again.reassign_shards(0)
    again.release(3)
    assert again.reassign_shards(3) == (2, [3]), "worker 1 has two already"
    saved = leases.state_dict()
    other = Leases(batches(4))
    other.load_state_dict(saved)
    assert other.shards == leases.shards
    other.restart()
    assert other.shards == {worker: [worker] for worker in range(4)}


def test_files_call_shards_parts():
    """Leases as checkpoints of all versions hold them."""
    saved = {"next": 3, "held": {1: 2}, "returned": [0], "idle": [], "gone": [0]}
    shards = {"parts": {0: [], 1: [1, 0], 2: [2]}, "drawn_from": {1: [1]}, "quota": 5}
    leases = Leases(batches(3))
    leases.load_state_dict(saved | shards)
    assert leases.shards == {0: [], 1: [1, 0], 2: [2]}
    assert torch.equal(leases.done(1)[0].ids, batches(3).draw(2, [1]).ids)
    written = leases.state_dict()
    assert (written["parts"], written["drawn_from"]) == (shards["parts"], shards["drawn_from"])
    older = Leases(batches(None))
    older.load_state_dict(saved)
    assert older.shards == {}


def test_without_shards_nothing_is_reassigned():
    leases = Leases(batches(None))
    leases.release(0)
    assert leases.reassign_shards(0) is None


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("host")) as made:
        yield made


DUALS = ("primal", "dual", "duality_gap", "suboptimality")


def check_replay(machine: Host, run: Run, folder: Path, *given: str, measured: Sequence[str] = DUALS) -> None:
    """Replay a run, and find its weights and what else it `measured` again."""
    again = machine.start(folder, *given, "cluster=replay", f"cluster.trace={run.folder}")
    assert again.end() == 0
    for key in ("weights_sha256", "updates", *measured):
        assert again.summary[key] == run.summary[key]


def check_relation(folder: Path) -> None:
    """Compare (1/λn) Σ α_i x_i, of the newest checkpoint's mirror, with its w."""
    found = checkpoint.newest_intact(folder)
    assert found is not None
    state = found[0]["executor"]["method"]
    x = build.build_run(compose(*OVERRIDES)).dataset.train.batch(torch.arange(203))[0]
    combined = state["alpha"].double() @ x.double() / (0.1 * 203)
    torch.testing.assert_close(combined, state["w"].double(), atol=1e-5, rtol=1e-3)


PROCESSES = ("cluster=processes", "cluster.workers=3", "cluster.timeout=20")


@pytest.mark.slow
@linux
@pytest.mark.parametrize("option", ["sampling=uniform", "sampling=adaptive", "replacement=false"])
def test_recorded_shards_replay_bit_for_bit(machine: Host, tmp_path: Path, option: str):
    given = (*OVERRIDES, "run.epochs=2", f"algorithm.{option}")
    run = machine.start(tmp_path / "run", *given, *PROCESSES)
    assert run.end() == 0
    check_relation(run.folder)
    check_replay(machine, run, tmp_path / "again", *given)


@pytest.mark.slow
@linux
def test_a_lost_workers_part_goes_on_elsewhere(machine: Host, tmp_path: Path):
    given = (*OVERRIDES, "run.epochs=60", "run.eval_every=1", "cluster.compute.seconds=0.005")
    run = machine.start(tmp_path / "run", *given, *PROCESSES)
    run.saved(3)
    run.signal("worker 1", signal.SIGKILL)
    assert run.end() == 0
    assert run.summary["workers_lost"] == 1
    assert "worker 0 takes over its shard of the training set" in machine.output.read_text()
    check_relation(run.folder)
    without = [item for item in given if not item.startswith("cluster.")]
    check_replay(machine, run, tmp_path / "again", *without)


@pytest.mark.slow
@linux
def test_resumed_runs_keep_their_duals(machine: Host, tmp_path: Path):
    given = (*OVERRIDES, "run.epochs=60", "run.eval_every=1", "cluster.compute.seconds=0.005")
    run = machine.start(tmp_path / "run", *given, *PROCESSES)
    run.saved(3)
    run.signal("server", signal.SIGTERM)
    assert run.end() == 143
    check_relation(run.folder)
    again = machine.start(run.folder, *given, *PROCESSES, resume=True)
    assert again.end() == 0
    check_relation(run.folder)
    without = [item for item in given if not item.startswith("cluster.")]
    check_replay(machine, again, tmp_path / "again", *without)


OWN = (
    *("algorithm=asysvrg", "algorithm.own_shard=true", "algorithm.inner=30", "model=linear"),
    *("dataset=synthetic", "dataset.shape=[12]", "dataset.train=203", "dataset.test=40", "run.batch_size=5"),
)
"""A method without duals whose workers draw from shards all the same."""


@pytest.mark.slow
@linux
@pytest.mark.parametrize("replacement", ["true", "false"])
def test_own_shards_survive_a_lost_worker_and_a_stop(machine: Host, tmp_path: Path, replacement: str):
    given = (*OWN, f"algorithm.replacement={replacement}", "run.epochs=60", "run.eval_every=1")
    slow = ("cluster.compute.seconds=0.005",)
    run = machine.start(tmp_path / "run", *given, *PROCESSES, *slow)
    run.saved(3)
    run.signal("worker 1", signal.SIGKILL)
    run.saved(6)
    run.signal("server", signal.SIGTERM)
    assert run.end() == 143
    again = machine.start(run.folder, *given, *PROCESSES, *slow, resume=True)
    assert again.end() == 0
    assert again.summary["workers_lost"] == 1
    check_replay(machine, again, tmp_path / "again", *given, measured=["final_test_error", "final_train_loss"])
    other = machine.start(
        tmp_path / "other", *given, "algorithm.own_shard=false", "cluster=replay", f"cluster.trace={run.folder}"
    )
    assert other.end() == 0
    assert other.summary["weights_sha256"] != again.summary["weights_sha256"]
