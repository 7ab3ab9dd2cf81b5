from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.processes.message_buffer import BATCH, STOP, MessageBuffer
from runner.processes.worker import BATCHES, WorkerProcess, pull_fields, push_fields
from runner.train import build
from tests.drawing import NETWORK
from tests.graphs import CpuGraphs, Late
from tests.trial import Trial, compose, run_in

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


def test_one_worker_has_the_bits_of_sgd(tmp_path: Path):
    code, real = run_in(tmp_path / "real", "algorithm=dc_asgd_a", "cluster=processes", "cluster.workers=1", *RUN)
    sequential = run_in(tmp_path / "sequential", "algorithm=sgd", *RUN)[1]
    assert (code, real["status"]) == (0, "completed")
    for key in ("weights_sha256", "buffers_sha256", "updates", "samples", "final_test_error"):
        assert real[key] == sequential[key], key


class Server:
    """A link whose other end answers every push with new weights and the next batch."""

    def __init__(self, layout: Any, push: Any, weights: torch.Tensor, tasks: int) -> None:
        self.outbox, self.inbox = MessageBuffer(pull_fields(layout.pull, 1)), MessageBuffer(push)
        self.weights, self.tasks = weights, tasks
        self.pushes: list[dict[str, torch.Tensor]] = []
        self.sums: list[torch.Tensor] = []

    def receive(self, buffer: torch.Tensor) -> None:
        task = len(self.pushes)
        self.outbox.header[0] = BATCH if task < self.tasks else STOP
        self.outbox.header[1] = 1
        self.outbox.fill({"w": self.weights + 0.01 * task, BATCHES: torch.tensor([task])})
        buffer.copy_(self.outbox.raw)

    def send(self, buffer: torch.Tensor) -> Any:
        self.inbox.raw.copy_(buffer)
        self.pushes.append({name: tensor.clone() for name, tensor in self.inbox.tensors.items()})
        self.sums.append(self.inbox.numbers[:3].clone())

        class Done:
            wait: Callable[[], None] = staticmethod(lambda: None)

        return Done()


def test_workers_draw_what_the_simulation_draws(tmp_path: Path):
    """One worker that draws in its network and in its half, after a history of its own: its first push is the same."""
    given = ("algorithm=asgd", "algorithm._target_=tests.drawing.Noisy", *NETWORK, "cluster.workers=1", "run.epochs=1")
    trial = Trial(*given, folder=tmp_path)
    server: Any = trial.executor
    pushed: list[torch.Tensor] = []
    original = server.server.push
    server.server.push = lambda worker, message, step: (
        pushed.append(message["g"].clone()),
        original(worker, message, step),
    )
    trial.run()
    torch.manual_seed(1)
    components = build.build_run(compose(*given))
    method: Any = components.method
    layout = method.layout(components.parameters)
    link: Any = Server(layout, layout.push, components.oracle.replica.weights.clone(), tasks=1)
    WorkerProcess(
        method.worker(0),
        link,
        worker=0,
        layout=layout,
        oracle=components.oracle,
        batches=components.batches,
        clock=components.clock(),
        gradients=lambda updates: 1.0,
    ).run()
    assert torch.equal(link.pushes[0]["g"], pushed[0])


@pytest.mark.parametrize("streamed", [False, True], ids=["on a CPU", "as on a GPU"])
def test_pushes_are_gradients_at_pulled_weights(streamed: bool):
    """Two sizes of batches, weights that arrive in one buffer: as on a GPU, beside the batch, a graph's branch."""
    limits = ("dataset.limit_train=70", "dataset.limit_test=20", "dataset.augment=true", "run.batch_size=16")
    brief = ("cluster.workers=1", "cluster.compute.seconds=0.001")  # what a worker sleeps
    overrides = ("algorithm=asgd", "model=resnet8", "run.epochs=3", *brief, *limits)
    reference, components = build.build_run(compose(*overrides)), build.build_run(compose(*overrides))
    oracle, late, graphs = components.oracle, Late(), CpuGraphs()
    if streamed:
        doubles = build.NetworkOracle(oracle.replica, oracle.split, seed=oracle.seed, side_stream=late, graphs=graphs)
        oracle = doubles
    n, statistics = oracle.replica.weights.numel(), oracle.replica.statistics.numel()
    method: Any = components.method
    layout = method.layout(n)
    server: Any = Server(layout, push_fields(layout.push, statistics), oracle.replica.weights.clone(), tasks=12)
    WorkerProcess(
        method.worker(0),
        server,
        worker=0,
        layout=layout,
        oracle=oracle,
        batches=components.batches,
        clock=components.clock(),
        gradients=lambda updates: 1.0,
    ).run()
    assert len(server.pushes) == 12
    sizes = set()
    for task, (push, sums) in enumerate(zip(server.pushes, server.sums, strict=True)):
        batch = reference.batches.batch(task)
        sizes.add(len(batch.ids))
        assert torch.equal(push["g"], reference.oracle.gradient(server.weights + 0.01 * task, batch)), task
        assert torch.equal(push["batch statistics"], reference.oracle.replica.statistics)
        assert torch.equal(sums, reference.oracle.take_totals())
    assert len(sizes) == 2
    if streamed:
        assert late.log == ["start", "join"] * (late.log.count("join"))
        assert graphs.captures == len(sizes)
        assert graphs.replays == 12 - len(sizes)
