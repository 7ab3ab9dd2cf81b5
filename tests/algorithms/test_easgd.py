from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.base import Batch, Message, Step, message_bytes
from algorithms.easgd import EAMSGD, EASGD
from runner.simulated.server import SimulatedServer
from tests.algorithms.driven import VISITS, N, rate, start
from tests.trial import QuadraticOracle, Trial, equal, train

RUN = ("model=mlp", "dataset.limit_train=70", "dataset.limit_test=50", "run.batch_size=16", "run.epochs=2")
QUADRATIC = ("model=linear", "run.batch_size=1", "schedule.lr=0.5", "dataset.limit_train=7", "run.epochs=1")
WORKERS = 3


class Paper:
    """Algorithms 1 and 2 in NumPy, a worker's τ steps at a time."""

    def __init__(self, alpha: float, momentum: float, weight_decay: float) -> None:
        self.center = start().astype(np.float64)
        self.x = [self.center.copy() for _ in range(WORKERS)]
        self.v = [np.zeros(N) for _ in range(WORKERS)]
        self.t = [0] * WORKERS
        self.alpha, self.momentum, self.weight_decay = alpha, momentum, weight_decay

    def steps(self, worker: int, noises: list[np.ndarray], lr: float) -> None:
        for noise in noises:
            at = self.x[worker] + self.momentum * self.v[worker]
            g = 0.5 * at + noise + self.weight_decay * at
            self.v[worker] = self.momentum * self.v[worker] - lr * g
            self.x[worker] = self.x[worker] + self.v[worker]

    def exchange(self, worker: int) -> np.ndarray:
        """Lines a and b; return what line a takes away."""
        e = self.alpha * (self.x[worker] - self.center)
        self.center = self.center + e
        return e


def played(method: EASGD, tau: int, paper: Paper | None) -> None:
    """Let three workers take τ steps at a time, in double precision, and hold every message against the paper."""
    random = np.random.default_rng(0)
    method.start(torch.from_numpy(start()).double(), WORKERS)
    halves = [method.worker(worker) for worker in range(WORKERS)]
    kept = []
    for half in halves:
        state = {"x": torch.zeros(N).double(), "t": torch.zeros(1, dtype=torch.int64)}
        kept.append(state | ({"v": torch.zeros(N).double()} if method.momentum else {}))
        half.keep(kept[-1])
    moved = [np.zeros(N) for _ in range(WORKERS)]
    pulled: list[Message] = []

    def pull(worker: int, step: Step) -> Message:
        method.announce(step)
        sent = {name: tensor.clone() for name, tensor in method.pull(worker).items()}
        assert equal(sent, method.sent(worker))
        return sent

    pulled = [pull(worker, rate(0)) for worker in range(WORKERS)]
    rates = [rate(0).lr] * WORKERS
    for number, worker in enumerate(VISITS):
        noises = [random.standard_normal(N) for _ in range(tau)]
        oracle: Any = SimpleNamespace(gradient=lambda w, batch: 0.5 * w + torch.from_numpy(noises[batch.step]))  # noqa: B023
        message: Message = {}
        for step in range(tau):
            message = halves[worker].work(oracle, pulled[worker], Batch(number, 0, torch.arange(1), step=step))
        method.push(worker, message, rate(number))
        if paper is not None:
            # In the first step line a moves x^i after the gradient was taken: what it takes away comes off once.
            at = paper.x[worker] + paper.momentum * paper.v[worker]
            g = (0.5 + paper.weight_decay) * at + noises[0]
            paper.v[worker] = paper.momentum * paper.v[worker] - rates[worker] * g
            paper.x[worker] = paper.x[worker] - moved[worker] + paper.v[worker]
            paper.steps(worker, noises[1:], rates[worker])
            moved[worker] = paper.exchange(worker)
            np.testing.assert_allclose(kept[worker]["x"], paper.x[worker], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(method.w, paper.center, rtol=1e-9, atol=1e-9)
        pulled[worker], rates[worker] = pull(worker, rate(number + 1)), rate(number + 1).lr
    assert [int(state["t"]) for state in kept] == [tau * VISITS.count(worker) for worker in range(WORKERS)]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("tau", "alpha", "momentum"), [(1, 0.3, 0.0), (3, None, 0.0), (1, None, 0.5), (3, 0.9, 0.5)])
def test_steps_match_numpy(tau: int, alpha: float | None, momentum: float, weight_decay: float):
    method: Any = EASGD(tau=tau, alpha=alpha, weight_decay=weight_decay)
    if momentum:
        method = EAMSGD(tau=tau, alpha=alpha, weight_decay=weight_decay, momentum=momentum)
    played(method, tau, Paper(0.3 if alpha is None else alpha, momentum, weight_decay))


def states(trial: Trial) -> list[Message]:
    executor: Any = trial.executor
    assert isinstance(executor, SimulatedServer)
    return executor.states


@pytest.mark.parametrize("tau", [1, 4])
def test_without_a_force_the_center_stays_and_workers_train_alone(tau: int, tmp_path: Path):
    """One worker is sequential SGD to the bit, with the l2 term; the last push is of what is left."""
    options = (*RUN, "schedule.lr=0.1", "algorithm.weight_decay=0.01")
    given = ("algorithm=easgd", f"algorithm.tau={tau}", "algorithm.alpha=0", *options)
    begun = Trial(*given, "cluster.workers=2", folder=tmp_path)
    before = begun.weights
    assert equal(begun.run().weights, before)
    alone = train(*given, "cluster.workers=1", folder=tmp_path)
    assert torch.equal(states(alone)[0]["x"], train("algorithm=sgd", *options, folder=tmp_path).state["w"])
    assert alone.control.updates == -(-10 // tau)
    assert alone.control.epoch == 2
    assert int(states(alone)[0]["t"]) == 10


def test_without_momentum_eamsgd_is_easgd(tmp_path: Path):
    options = (*RUN, "cluster.workers=3", "algorithm.tau=2")
    plain = train("algorithm=easgd", *options, folder=tmp_path)
    assert equal(plain.state, train("algorithm=eamsgd", "algorithm.momentum=0", *options, folder=tmp_path).state)
    assert not equal(plain.weights, train("algorithm=eamsgd", *options, folder=tmp_path).weights)


def test_two_workers_worked_out_by_hand(tmp_path: Path):
    """On w²/2 from 64 with η = 1/2, α = 1/4, τ = 2, seven batches; gradients take 1 and 2 seconds.

    Worker 0 halves its x twice in two seconds, worker 1 in four; at the same second worker 0 is first.
    Second 2: x⁰ = 16 meets 64, x̃ = 52. Then line a moves x⁰ by 12 in the next step: 16 − 8 + 12 = 20, then 10.
    Second 4: x⁰ = 10 meets 52, x̃ = 41.5; x¹ = 16 meets 41.5, x̃ = 35.125. One batch is left, worker 0's.
    Second 5: x⁰ = 10 − 5 + 10.5 = 15.5 meets 35.125, x̃ = 30.21875.
    """
    clock = ("cluster.compute.distribution=constant", "cluster.compute.seconds=2", "cluster.compute.speeds=[2,1]")
    given = ("algorithm=easgd", "algorithm.tau=2", "algorithm.alpha=0.25", "algorithm.weight_decay=0")
    trial = Trial(*QUADRATIC, *clock, "cluster.workers=2", *given, folder=tmp_path, oracle=QuadraticOracle(64.0))
    found = list[tuple[float, float, float]]()
    trial.notes.on_update = lambda: found.append(
        (trial.control.seconds, trial.control.epoch, float(trial.executor.weights()))
    )
    trial.run()
    assert found == [(2.0, 2 / 7, 52.0), (4.0, 4 / 7, 41.5), (4.0, 6 / 7, 35.125), (5.0, 1.0, 30.21875)]
    assert [state["x"].item() for state in states(trial)] == [15.5, 16.0]
    report = trial.executor.timeline.report(5.0)
    assert [worker["utilization"] for worker in report["workers"]] == [1.0, 0.8]


def test_worker_that_begins_anew_takes_the_center():
    method = EASGD(tau=1, alpha=0.5)
    method.start(torch.tensor([8.0]), 2)
    assert method.pull(0)["met"].item() == 8.0
    method.push(1, {"x": torch.tensor([0.0])}, Step(lr=0.1))
    assert (method.w.item(), method.pull(1)["met"].item(), method.pull(0)["met"].item()) == (4.0, 8.0, 4.0)
    method.push(0, {"x": torch.tensor([2.0])}, Step(lr=0.1))
    assert method.pull(0)["met"].item() == 4.0
    assert method.pull(0)["met"].item() == 4.0, "a worker whose answer was lost gets it again"
    method.lost(0)
    assert method.pull(0)["met"].item() == 3.0


def test_messages_are_of_the_weights_and_two_rates():
    layout = EAMSGD().layout(100)
    assert (message_bytes(layout.pull), message_bytes(layout.push)) == (400 + 16, 400)
    assert message_bytes(layout.state) == 808


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0}, r"algorithm\.tau=0: out of range; allowed: tau >= 1"),
        ({"tau": 2.5}, r"algorithm\.tau=2\.5: is not a whole number"),
        ({"alpha": 1.5}, r"algorithm\.alpha=1\.5: out of range; allowed: 0 <= alpha <= 1"),
        ({"momentum": 1.0}, r"algorithm\.momentum=1\.0: out of range; allowed: 0 <= momentum < 1"),
        ({"weight_decay": -1.0}, r"algorithm\.weight_decay=-1\.0: out of range"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        EAMSGD(**options)
