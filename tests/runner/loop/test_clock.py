import math

import numpy as np
import pytest
from omegaconf import OmegaConf

from runner.config.schema import ComputeConfig as Compute
from runner.config.schema import NetworkConfig as Network
from runner.config.schema import StragglersConfig as Stragglers
from runner.config.seeds import derive
from runner.loop.clock import STRAGGLER, TASK, Clock


def make(compute=None, stragglers=None, network=None, *, workers=4, seed=0) -> Clock:
    compute, stragglers, network = compute or Compute("constant"), stragglers or Stragglers(), network or Network()
    return Clock(compute, stragglers, network, workers=workers, seed=seed)


def draw(clock: Clock, worker: int, tasks: int = 4000) -> np.ndarray:
    return np.array([clock.compute_seconds(worker, task) for task in range(tasks)])


@pytest.mark.parametrize(
    ("compute", "deviation"),
    [
        (Compute("constant", seconds=3.0), 0.0),
        (Compute("uniform", seconds=3.0, jitter=0.5), 3.0 * 0.5 / math.sqrt(3)),
        (Compute("lognormal", seconds=3.0, sigma=0.8), 3.0 * math.sqrt(math.exp(0.8**2) - 1)),
        (Compute("gamma", seconds=3.0, cv_task=0.5, cv_machine=0.0), 3.0 * 0.5),
    ],
    ids=lambda value: getattr(value, "distribution", ""),
)
def test_mean_and_deviation_are_the_models_own(compute, deviation):
    times = draw(make(compute), worker=2)
    assert times.min() > 0
    assert times.mean() == pytest.approx(3.0, abs=4 * deviation / math.sqrt(len(times)) + 1e-12)
    assert times.std() == pytest.approx(deviation, rel=0.1, abs=1e-12)


def test_uniform_stays_within_its_jitter():
    times = draw(make(Compute("uniform", seconds=2.0, jitter=0.25)), worker=0)
    assert 1.5 <= times.min() < 1.51
    assert 2.49 < times.max() <= 2.5


def test_gamma_varies_between_machines_and_within_each():
    clock = make(Compute("gamma", seconds=2.0, cv_task=0.1, cv_machine=0.6), workers=1000)
    times = np.array([[clock.compute_seconds(worker, task) for task in range(10)] for worker in range(1000)])
    machines = times.mean(axis=1)
    assert machines.mean() == pytest.approx(2.0, rel=0.08)
    assert machines.std() / machines.mean() == pytest.approx(0.6, rel=0.12)
    within = times.std(axis=1, ddof=1) / machines
    assert within.mean() == pytest.approx(0.1, rel=0.1)


def test_gamma_without_variation_is_constant():
    clock = make(Compute("gamma", seconds=2.0, cv_task=0.0, cv_machine=0.0))
    assert set(draw(clock, worker=1, tasks=5)) == {2.0}


def test_file_says_every_tasks_seconds(tmp_path, caplog):
    (tmp_path / "d.csv").write_text("1,10\n2,20\n3,\n")
    clock = make(Compute(delays=str(tmp_path / "d.csv")), workers=2)
    assert [clock.compute_seconds(0, task) for task in range(3)] == [1.0, 2.0, 3.0]
    # A smaller batch takes its share, two gradients take twice as long.
    assert clock.compute_seconds(1, 1, 0.5, 2.0) == 20.0
    assert not caplog.records
    assert [clock.compute_seconds(1, task) for task in range(2, 5)] == [10.0, 20.0, 10.0]
    assert clock.compute_seconds(0, 3) == 1.0
    assert clock.step_seconds(1, np.array([1.0, 0.5])).tolist() == [2.0, 10.0]
    assert [record.getMessage() for record in caplog.records] == [
        f"cluster.compute.delays={tmp_path / 'd.csv'}: has 2 gradients of worker 1, which repeat from here on"
    ]


@pytest.mark.parametrize("distribution", ["uniform", "lognormal", "gamma"])
def test_draws_depend_on_seed_worker_task(distribution):
    def new(seed: int = 5) -> Clock:
        return make(Compute(distribution), Stragglers(probability=0.5), seed=seed)

    asked = [(worker, task) for worker in range(4) for task in (0, 1, 7, 10**6)]
    forward, backward = new(), new()
    first = {key: forward.compute_seconds(*key) for key in asked}
    second = {key: backward.compute_seconds(*key) for key in reversed(asked)}
    assert first == second
    assert len(set(first.values())) == len(asked)
    assert all(new(seed=6).compute_seconds(*key) != seconds for key, seconds in first.items())


def test_workers_are_independent():
    clock = make(Compute("uniform"))
    assert abs(np.corrcoef(draw(clock, 0), draw(clock, 1))[0, 1]) < 0.08


def test_speeds_shares_and_gradients_scale_the_time():
    plain, fast = make(Compute("lognormal")), make(Compute("lognormal", speeds=[1.0, 2.0, 0.5, 1.0]))
    assert fast.compute_seconds(1, 3) == pytest.approx(plain.compute_seconds(1, 3) / 2)
    assert fast.compute_seconds(2, 3) == pytest.approx(plain.compute_seconds(2, 3) * 2)
    assert fast.compute_seconds(0, 3, load=0.25) == pytest.approx(plain.compute_seconds(0, 3) / 4)
    assert fast.compute_seconds(0, 3, gradients=2.0) == pytest.approx(plain.compute_seconds(0, 3) * 2)


def test_stragglers_follow_probability_and_range():
    compute = Compute("uniform", seconds=2.0)
    plain, slow = make(compute), make(compute, Stragglers(probability=0.2, extra=[1.0, 3.0]))
    extra = draw(slow, 1) / draw(plain, 1) - 1.0
    hit = extra > 1e-9
    assert hit.mean() == pytest.approx(0.2, abs=0.03)
    assert 1.0 <= extra[hit].min() < 1.05
    assert 2.95 < extra[hit].max() <= 3.0
    assert extra[hit].mean() == pytest.approx(2.0, abs=0.1)
    assert draw(plain, 1)[hit].mean() == pytest.approx(2.0, abs=0.02), "fast and slow tasks are hit alike"


def test_only_the_named_workers_straggle():
    clock = make(stragglers=Stragglers(probability=1.0, extra=[2.0, 2.0], workers=[1, 3]))
    assert [clock.compute_seconds(worker, 0) for worker in range(4)] == [1.0, 3.0, 1.0, 3.0]


def test_transfer_is_latency_plus_bytes_over_bandwidth():
    assert make(network=Network(latency=0.5, bandwidth=100.0)).transfer_seconds(250) == 3.0
    assert make(network=Network(latency=0.5)).transfer_seconds(250) == 0.5


def test_ring_allreduce_by_hand():
    # 4 workers: 6 steps, each one latency of 0.1 s and a quarter of 400 bytes at 1000 bytes/s.
    clock = make(network=Network(latency=0.1, bandwidth=1000.0))
    assert clock.allreduce_seconds(400, 4) == pytest.approx(6 * 0.1 + 6 * 0.1)
    assert clock.allreduce_seconds(400, 2) == pytest.approx(2 * 0.1 + 2 * 0.2)
    assert clock.allreduce_seconds(400, 1) == 0.0


def test_linear_allreduce_by_hand():
    # t_c = m n_p / BW (DaSGD 3.3): 4 workers, 400 bytes, 1000 bytes/s, and one latency.
    clock = make(network=Network(latency=0.1, bandwidth=1000.0, allreduce="linear"))
    assert clock.allreduce_seconds(400, 4) == pytest.approx(0.1 + 1.6)
    assert clock.allreduce_seconds(400, 1) == 0.0


def test_takes_hydra_configs():
    sections = [OmegaConf.structured(section) for section in (Compute("gamma", speeds=[1, 2]), Stragglers(), Network())]
    clock = Clock(*sections, workers=2, seed=1)
    plain = make(Compute("gamma", speeds=[1, 2]), workers=2, seed=1)
    assert clock.compute_seconds(1, 9) == plain.compute_seconds(1, 9)
    assert clock.server_seconds == 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"compute": Compute(seconds=math.nan)}, "cluster.compute.seconds=nan: is out of range"),
        ({"compute": Compute(speeds=[1.0, 2.0])}, "cluster.compute.speeds=[1,2]: has 2 entries; allowed: one per"),
        ({"stragglers": Stragglers(extra=[3.0, 1.0])}, "cluster.stragglers.extra=[3,1]: "),
        ({"stragglers": Stragglers(workers=[4])}, "cluster.stragglers.workers=[4]: there is no worker 4"),
        ({"network": Network(allreduce="tree")}, "cluster.network.allreduce=tree: "),
        ({"workers": 0}, "cluster.workers=0: "),
    ],
)
def test_sections_are_validated(wrong, message):
    # `tests/runner/config/test_validation.py` has every rule; here, that the clock does ask.
    with pytest.raises(ValueError) as caught:
        make(**wrong)
    assert str(caught.value).startswith(message)
    assert "; allowed: " in str(caught.value)


@pytest.mark.parametrize("distribution", ["uniform", "lognormal", "gamma"])
def test_draws_build_no_generator(distribution, monkeypatch):
    clock = make(Compute(distribution), Stragglers(probability=0.5))
    for name in ("Philox", "Generator", "default_rng", "SeedSequence"):
        monkeypatch.delattr(np.random, name)
    # Building one takes several times as long as a draw, and a simulation draws for every gradient.
    assert len({clock.compute_seconds(1, task) for task in range(500)}) == 500


def test_uniform_and_lateness_are_one_generators_draws():
    clock = make(Compute("uniform", seconds=0.7, jitter=0.3), Stragglers(0.4, [1.0, 5.0], [0, 2]), workers=3, seed=9)
    for worker, task in ((0, 0), (1, 3), (2, 5000)):
        seconds = 0.7 * (1.0 + 0.3 * clock._at(TASK, worker, task).uniform(-1.0, 1.0)) * 0.5 * 2.0
        generator = clock._at(STRAGGLER, worker, task)
        late = generator.uniform(1.0, 5.0) if generator.random() < 0.4 else 0.0
        expected = seconds + (late * seconds if worker != 1 else 0.0)
        assert clock.compute_seconds(worker, task, 0.5, 2.0) == expected


def test_other_draws_are_those_of_a_new_generator():
    for worker, task in ((0, 0), (1, 3), (2, 5000), (0, 1)):
        bits = np.random.Philox(key=derive(9, "clock"))
        state = bits.state
        state["state"]["counter"][:] = (0, TASK, worker, task)
        bits.state = state
        normal = np.random.Generator(bits).standard_normal()
        bits.state = state
        gamma = np.random.Generator(bits).standard_gamma(4.0)
        log = make(Compute("lognormal", sigma=0.5), workers=3, seed=9)
        assert log.compute_seconds(worker, task) == math.exp(0.5 * normal - 0.125)
        plain = make(Compute("gamma", cv_task=0.5, cv_machine=0.0), workers=3, seed=9)
        assert plain.compute_seconds(worker, task) == 1.0 / 4.0 * gamma


@pytest.mark.parametrize("distribution", ["constant", "uniform", "lognormal", "gamma"])
def test_step_has_seconds_of_its_tasks(distribution):
    compute = Compute(distribution, speeds=[1.0, 0.3, 2.0, 0.7])
    clock = make(compute, Stragglers(probability=0.5, workers=[0, 1, 3]))
    loads = np.array([1.0, 0.25, 1 / 3, 0.0])
    for task in (0, 6, 1500):
        expected = [clock.compute_seconds(worker, task, load, 3.0) for worker, load in enumerate(loads.tolist())]
        assert clock.step_seconds(task, loads, 3.0).tolist() == expected
        some, gradients = np.array([3, 1]), np.array([3.0, 0.5])
        own = [clock.compute_seconds(3, task, 0.25, 3.0), clock.compute_seconds(1, task + 1, 1.0, 0.5)]
        for _ in range(2):
            found = clock.tasks_seconds(some, np.array([task, task + 1]), np.array([0.25, 1.0]), gradients)
            assert found.tolist() == own


def test_real_worker_sleeps_like_the_clock():
    virtual = make(Compute(seconds=0.5, distribution="gamma"), Stragglers(probability=0.3), workers=3, seed=1)
    for worker, task in ((0, 0), (1, 5), (2, 7)):
        seconds = virtual.compute_seconds(worker, task, 0.5, 2.0)
        assert virtual.sleep_seconds(worker, task, 0.1 * seconds, 0.5, 2.0) == pytest.approx(0.9 * seconds)
        assert virtual.sleep_seconds(worker, task, 2 * seconds, 0.5, 2.0) == 0


def test_speeds_and_stragglers_stretch_measured_time():
    chance: dict = {"probability": 0.5, "extra": [2.0, 2.0]}
    real = make(Compute(seconds=None, speeds=[2.0, 1.0, 2.0]), Stragglers(**chance), workers=3, seed=1)
    virtual = make(Compute(seconds=1.0, distribution="constant"), Stragglers(**chance), workers=3, seed=1)
    late = [virtual.compute_seconds(0, task) > 2 for task in range(50)]
    assert 10 < sum(late) < 40
    assert [real.sleep_seconds(0, task, 0.1) for task in range(50)] == pytest.approx([0.2 if x else 0.0 for x in late])
    calm = make(Compute(seconds=None, speeds=[2.0, 1.0, 2.0]), workers=3, seed=1)
    assert calm.sleep_seconds(1, 0, 0.1) == pytest.approx(0.1)
    assert calm.sleep_seconds(2, 0, 0.1) == 0


@pytest.mark.parametrize(("kind", "seconds"), [("ring", 3 * (0.1 + 0.4)), ("linear", 0.1 + 1.6)])
def test_allgather_by_hand(kind: str, seconds: float):
    # 4 workers of 400 bytes each, 1000 bytes/s: in a ring three steps with all of one worker's bytes.
    clock = make(network=Network(latency=0.1, bandwidth=1000.0, allreduce=kind))
    assert clock.allgather_seconds(400, 4) == pytest.approx(seconds)
    assert clock.allgather_seconds(400, 1) == 0.0
    assert clock.combining_seconds("gather", 400, 4) == clock.allgather_seconds(400, 4)
    assert clock.combining_seconds("mean", 400, 4) == clock.allreduce_seconds(400, 4)


def test_draws_of_tasks_do_not_overlap():
    # A gamma draw takes as many numbers as it rejects: a next task that began inside them would repeat some.
    clock = make()
    streams = [set(clock._at(TASK, worker, task).random(500)) for worker in range(2) for task in range(3)]
    assert len(set.union(*streams)) == 6 * 500
