"""Measures round trips per second of real processes with empty gradients, relative to a bare gloo send/receive loop.

One process is the server, the others are workers. The bare loop sends and receives buffers of the same size over groups
of the same kind (two ranks each, gloo on the loopback interface), a thread for each worker on the server's side, and
nothing else. dcrun's side is a whole run of `asgd` on ResNet-20, trace included, whose gradients are ready-made zeros.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import as_in_dcrun  # noqa: F401  # isort: skip  # sets how threads wait, before PyTorch reads it
import torch
from sidebyside import Row, in_turn, main, ratios, sized
from subject import build_components, run
from torch.distributed.distributed_c10d import PrefixStore

from algorithms.base import Batch, ParameterServer
from runner.gradients.oracle import NetworkOracle
from runner.processes.links import Link
from runner.processes.message_buffer import MessageBuffer
from runner.processes.rendezvous import Rendezvous, file_rendezvous
from runner.processes.server import ProcessServer
from runner.processes.worker import WorkerProcess, push_fields
from runner.run_folder.timeline import Timeline
from runner.train.build import RunComponents

TRIPS = sized(200, 20)
"""Round trips that a side makes in a round, over all workers."""
ROUNDS, SECONDS = sized(15, 1), 60.0
TIMEOUT = 60.0


class EmptyGradients(NetworkOracle):
    """Answers with a gradient of zeros at once."""

    def gradient(self, w: torch.Tensor, batch: Batch) -> torch.Tensor:  # type: ignore[override]
        return self.replica.gradient


def subject(workers: int) -> RunComponents:
    """A run of TRIPS gradients."""
    overrides = [
        "algorithm=asgd",
        "algorithm.weight_decay=0",
        "model=resnet20",
        f"cluster.workers={workers}",
        "cluster=processes",
        "run.threads=1",
        "run.epochs=1",
    ]
    data = ["dataset=synthetic", "dataset.shape=[3,32,32]", "dataset.test=10", f"dataset.train={TRIPS}"]
    return build_components([*overrides, *data, "run.batch_size=1"])


def message_buffers(given: RunComponents) -> tuple[MessageBuffer, MessageBuffer]:
    """Buffers for a pull and a push, of the size that dcrun sends."""
    assert isinstance(given.method, ParameterServer)
    layout = given.method.layout(given.oracle.replica.weights.numel())
    return MessageBuffer(layout.pull), MessageBuffer(push_fields(layout.push, given.oracle.replica.statistics.numel()))


def fresh(rendezvous: Rendezvous, label: str) -> Rendezvous:
    """Return the same rendezvous, at which links can be made anew."""
    return Rendezvous(
        rendezvous.rank, rendezvous.world, PrefixStore(label, rendezvous.store), rendezvous.local, rendezvous.timeout
    )


def work(rank: int, workers: int, path: str) -> None:
    """Be a worker: both sides in turn, until the server has measured enough and ends this process."""
    given = subject(workers)
    rendezvous = file_rendezvous(path, rank, workers + 1, TIMEOUT)
    assert isinstance(given.method, ParameterServer)
    pull, push = message_buffers(given)
    layout = given.method.layout(given.oracle.replica.weights.numel())
    oracle = EmptyGradients(given.oracle.replica, given.dataset.train, seed=0)
    for turn in itertools.count():
        link = Link(fresh(rendezvous, f"bare{turn}"), rank - 1)
        for _ in range(TRIPS // workers):
            link.receive(pull.raw)
            link.send(push.raw).wait()
        link = Link(fresh(rendezvous, f"dcrun{turn}"), rank - 1)
        half = given.method.worker(rank - 1)
        WorkerProcess(
            half,
            link,
            worker=rank - 1,
            layout=layout,
            oracle=oracle,
            batches=given.batches,
            clock=given.clock(),
            gradients=given.method.evaluations,
            workers=workers,
        ).run()


class Server:
    """The server's side of both."""

    def __init__(self, workers: int, path: str) -> None:
        self.workers = workers
        self.given = subject(workers)
        self.rendezvous = file_rendezvous(path, 0, workers + 1, TIMEOUT)
        self.turns = {"bare": 0, "dcrun": 0}

    def links(self, label: str) -> list[Link]:
        """New links to all workers: receiving threads of the last run still listen on the old ones."""
        rendezvous = fresh(self.rendezvous, f"{label}{self.turns[label]}")
        self.turns[label] += 1
        return [Link(rendezvous, worker) for worker in range(self.workers)]

    def bare(self) -> float:
        """Round trips per second of a loop that only sends and receives."""

        def loop(link: Link) -> None:
            pull, push = message_buffers(self.given)
            for _ in range(TRIPS // self.workers):
                link.send(pull.raw).wait()
                link.receive(push.raw)

        threads = [threading.Thread(target=loop, args=(link,)) for link in self.links("bare")]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return TRIPS / (time.perf_counter() - begin)

    def dcrun(self) -> float:
        """Round trips per second of a whole run."""
        given, method = self.given, self.given.method
        assert isinstance(method, ParameterServer)
        links = self.links("dcrun")
        summary = run(
            given,
            lambda control: ProcessServer(
                method,
                links=links,
                replica=given.oracle.replica,
                batches=given.batches,
                control=control,
                timeline=Timeline(self.workers),
                clock=given.clock(),
                recorder=given.recorder(control.folder) if control.folder else None,
            ),
        )
        return summary["samples_per_second"]  # a sample per round trip


def compare(workers: int) -> Row:
    """Both sides with so many workers."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="dcrun-bench-") as folder:
        path = str(Path(folder) / "store")
        processes = [context.Process(target=work, args=(rank, workers, path)) for rank in range(1, workers + 1)]
        for process in processes:
            process.start()
        try:
            server = Server(workers, path)
            base, speeds = in_turn([server.bare, server.dcrun], rounds=ROUNDS, seconds=SECONDS)
        finally:
            for process in processes:
                process.kill()
    what = f"processes, empty gradients, {workers} worker{'s' if workers > 1 else ''} / bare gloo loop"
    return Row(
        what,
        0.7,
        ratios(speeds, base),
        note=f"bare gloo loop, {workers} worker(s): {max(base):.0f} round trips/s at best",
    )


def measure() -> list[Row]:
    """One worker, where the server waits for every message, and several, where messages wait for the server."""
    torch.set_num_threads(1)
    return [compare(1), compare(sized(4, 2))]


if __name__ == "__main__":
    main(measure)
    sys.stdout.flush()
    # As dcrun's own ranks do: receiving threads still sit in transfers from workers that are gone.
    os._exit(0)
