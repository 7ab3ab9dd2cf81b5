"""The table of topologies: how each protocol of `algorithms` is executed, simulated and on processes.

This is the one place of `runner` that tells the protocols apart by their classes. Everything else asks the method
(`algorithms.base.Stateful` says how its workers communicate), the executor, or the method's row of this table. To add a
topology, write its protocol, an executor in `runner.simulated`, one in `runner.processes`, and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from algorithms.base import Collective, ParameterServer, Stateful, Worker
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.config.units import FLOAT_BYTES
from runner.gradients.diagnostics import SUFFICIENT_DIRECTION
from runner.gradients.directions import Directions
from runner.loop.executor import Executor
from runner.loop.messages import check_message
from runner.loop.train_control import TrainControl
from runner.processes import profiled_calls as process_calls
from runner.processes.child import FindLost
from runner.processes.collective import ProcessCollective
from runner.processes.links import Link
from runner.processes.pipeline import ProcessPipeline
from runner.processes.refusal import check_refusal
from runner.processes.rendezvous import Rendezvous
from runner.processes.server import ProcessServer
from runner.processes.shared_memory import MemoryServer, MemoryWorker
from runner.processes.worker import WorkerProcess
from runner.run_folder.profile import Measured
from runner.run_folder.recorder import Recorder
from runner.run_folder.timeline import Timeline
from runner.run_folder.trace import Trace
from runner.simulated import profiled_calls as simulated_calls
from runner.simulated.arena import Arena
from runner.simulated.collective import SimulatedCollective
from runner.simulated.compute_pool import PoolOptions
from runner.simulated.compute_process import Tasks
from runner.simulated.events import ClockEvents, Events, TraceEvents
from runner.simulated.pipeline import SimulatedPipeline
from runner.simulated.server import SimulatedServer
from runner.simulated.shared_memory import SimulatedMemory
from runner.simulated.timing_run import TimingRun
from runner.simulated.transfers import transfers_on
from runner.train import clocks, compute, costs
from runner.train.build import build_run
from runner.train.components import RunComponents


@dataclass
class Rank:
    """What a rank of a run on processes has besides the components.

    Attributes:
        rendezvous: where the ranks meet.
        folder: the run folder, for rank 0.
        find_lost: see `FindLost`; asked by a server from when all workers have joined.
        report_step: told, step by step, how far this rank has come.
        at_end: closes, when the rank ends, what its executor opened.
        measure: told the functions of a server's worker, for `run.profile`.
    """

    rendezvous: Rendezvous
    folder: Path | None
    find_lost: FindLost
    report_step: Callable[[int], None]
    at_end: ExitStack
    measure: Callable[[Iterable[Measured]], None]


@dataclass(frozen=True)
class Topology:
    """How the methods of one protocol are executed.

    Attributes:
        medium: what the workers communicate through, as an error message says it.
        simulate: makes the executor on a virtual clock, or on a trace if one is given; records the messages if a run
            folder is given and the configuration asks for it.
        on_process: makes a rank's executor: rank 0's if there is a server, else every rank's.
        serve: does what a worker's rank does, if there is a server; None if all ranks are alike.
        tasks: makes what a compute process of a simulation does.
        meets_on_cpu: whether the ranks' group is one of CPUs, wherever they compute.
        measure_costs: measures what a step costs on this machine.
        time: makes what runs the clock of a simulation alone, see `run.timing_only`.
        simulated_calls: lists what `run.profile` measures of a simulated executor.
        process_calls: lists what it measures of an executor on processes.
    """

    medium: str
    simulate: Callable[[RunComponents, TrainControl, Path | None, Trace | None], Executor]
    on_process: Callable[[RunComponents, Rank, TrainControl], Executor]
    measure_costs: Callable[[RunComponents], costs.Costs]
    time: Callable[[RunComponents], TimingRun]
    simulated_calls: Callable[[Any], Iterable[Measured]]
    process_calls: Callable[[Any], Iterable[Measured]]
    tasks: Callable[[RunComponents, Arena, Any], Tasks]
    serve: Callable[[RunComponents, Rank], None] | None = None
    meets_on_cpu: bool = False

    @property
    def servers(self) -> int:
        """Number of ranks besides the workers: the server, or the owner of a shared memory, who hands out batches."""
        return 0 if self.serve is None else 1


def topology_of(algorithm: type[Stateful] | DictConfig) -> Topology:
    """Return the row of an algorithm's class, or of the class that a configuration names."""
    if isinstance(algorithm, DictConfig):
        algorithm = get_class(algorithm.algorithm._target_)
    # The class decides, not a key of the configuration: a method of the user's has the topology of its base class.
    # No method has two protocols, so the order of the table does not matter.
    return next(row for protocol, row in TOPOLOGIES.items() if issubclass(algorithm, protocol))


def simulated(
    components: RunComponents, control: TrainControl, folder: Path | None = None, trace: Trace | None = None
) -> Executor:
    """Return the simulated executor of a run; the arguments are those of `Topology.simulate`."""
    return topology_of(type(components.method)).simulate(components, control, folder, trace)


def build_tasks(plain: dict[str, Any], number: int, arena: Arena, places: Any) -> Tasks:
    """Build what a compute process does for a run; see `MakeTasks`."""
    # Spread over the GPUs as ranks are. CUDA begins here, in the process itself: one that was forked from a process
    # where it has begun could not use it.
    components = build_run(OmegaConf.create(plain), rank=number)
    return topology_of(type(components.method)).tasks(components, arena, places)


def _pool(
    components: RunComponents, shareable: Callable[[RunComponents], bool] = lambda components: True
) -> PoolOptions | None:
    """Return how a simulation's compute processes are made; None if its own process computes.

    Args:
        components: of the run.
        shareable: whether processes can share the method's state, as far as it can be seen before the run.
    """
    count, chosen = compute.process_count(components), components.cfg.run.compute_processes == "auto"
    if count == 1 or (chosen and not shareable(components)):
        return None
    plain: Any = OmegaConf.to_container(components.cfg, resolve=True)
    return PoolOptions(count, build_tasks, plain, transfers_on(components.device), chosen)


def _common(components: RunComponents, control: TrainControl, *, writes: bool = True) -> dict[str, Any]:
    """Return the arguments of every executor but a server on processes; `writes` is false without a run folder."""
    return {
        "oracle": components.oracle,
        "batches": components.batches,
        "control": control,
        "timeline": Timeline(components.workers, writes=writes),
    }


def _simulated_server(
    components: RunComponents, control: TrainControl, folder: Path | None, trace: Trace | None
) -> SimulatedServer:
    method: ParameterServer = components.method
    workers, common = components.workers, _common(components, control)
    events: Events
    if trace is not None:
        # No clock: computing and network take the recorded times.
        events = TraceEvents(trace.records, common["timeline"], workers=workers)
    else:
        # Before the method has started: a layout follows from the number of weights alone.
        layout = method.layout(components.parameters)
        events = ClockEvents(components.clock(), common["timeline"], layout=layout, workers=workers, stops=method.stops)
    recorder: Recorder | None = None if folder is None else components.recorder(folder)
    # The same server with other events is what makes a replay exact: only the order and the times come from the trace.
    return SimulatedServer(
        method,
        workers=workers,
        events=events,
        recorder=recorder,
        compiled=components.cfg.run.compile,
        compute=_pool(components),
        measured=components.measured_updates,
        **common,
    )


def _simulated_collective(
    components: RunComponents, control: TrainControl, folder: Path | None, trace: Trace | None
) -> SimulatedCollective:
    return SimulatedCollective(
        compute.instances(components),
        workers=components.workers,
        clock=components.clock(),
        compiled=components.cfg.run.compile,
        compute=_pool(components, compute.steps_in_place),
        **_common(components, control),
    )


def _simulated_memory(
    components: RunComponents, control: TrainControl, folder: Path | None, trace: Trace | None
) -> SimulatedMemory:
    method: SharedMemory = components.method
    executor = SimulatedMemory(
        method,
        workers=components.workers,
        clock=components.clock(),
        seed=components.cfg.seed,
        compute=_pool(components),
        **_common(components, control),
    )
    # Nothing is sent here, but on processes this is what workers get of a snapshot.
    rest = {name: tensor for name, tensor in method.state().items() if name != "w"}
    check_message(method, "state besides w", rest, method.snapshots(components.parameters))
    return executor


def _simulated_pipeline(
    components: RunComponents, control: TrainControl, folder: Path | None, trace: Trace | None
) -> SimulatedPipeline:
    # On request alone: the directions take passes through the whole network in every iteration.
    watched = SUFFICIENT_DIRECTION in components.cfg.run.diagnostics
    return SimulatedPipeline(
        components.methods(),
        components.partition,
        workers=components.workers,
        clock=components.clock(),
        directions=Directions(components.workers, components.device) if watched else None,
        compute=_pool(components),
        **_common(components, control),
    )


def _process_server(
    components: RunComponents, rank: Rank, control: TrainControl, owner: MemoryServer | None = None
) -> ProcessServer:
    assert rank.folder is not None
    return ProcessServer(
        # To the server's loop a shared memory looks like a method: its "pull" is a batch
        # and a rate, its "push" a count.
        components.method if owner is None else owner,
        # Making a link waits for the worker at its other end, who makes only his own.
        links=[Link(rank.rendezvous, worker) for worker in range(components.workers)],
        replica=components.oracle.replica,
        batches=components.batches,
        control=control,
        timeline=Timeline(components.workers),
        find_lost=rank.find_lost,
        clock=components.clock(),
        # In which order processes read and write a shared memory, nobody knows: nothing of it can be recorded.
        recorder=components.recorder(rank.folder) if owner is None else None,
        compiled=components.cfg.run.compile,
        check_refusal=partial(check_refusal, rank.rendezvous.store),
        measured=components.measured_updates if owner is None else (),
    )


def _memory_owner(components: RunComponents, rank: Rank, control: TrainControl) -> ProcessServer:
    owner = MemoryServer(components.method, rank.rendezvous.store, components.samples)
    # The owner has no control of its own, but sends the rate with each batch.
    owner.rate = control.rate
    # Only here: results are read from the memory after the executor's run.
    rank.at_end.callback(owner.close)
    server = _process_server(components, rank, control, owner)
    # Its messages are empty: what counts is what a worker reads and writes for a batch.
    server.pull_bytes = FLOAT_BYTES * components.parameters
    server.push_bytes = FLOAT_BYTES * clocks.written_elements(components)
    server.barrier_bytes = 0
    return server


def _process_collective(components: RunComponents, rank: Rank, control: TrainControl) -> ProcessCollective:
    return ProcessCollective(
        components.method,
        rendezvous=rank.rendezvous,
        clock=components.clock(),
        compiled=components.cfg.run.compile,
        **_common(components, control, writes=rank.folder is not None),
    )


def _process_pipeline(components: RunComponents, rank: Rank, control: TrainControl) -> ProcessPipeline:
    return ProcessPipeline(
        components.method,
        components.partition,
        rendezvous=rank.rendezvous,
        clock=components.clock(),
        **_common(components, control, writes=rank.folder is not None),
    )


def _serve(components: RunComponents, rank: Rank) -> None:
    # Rank 0 is the server.
    worker = rank.rendezvous.rank - 1
    _serve_half(components, rank, components.method, lambda: components.method.worker(worker))


def _serve_memory(components: RunComponents, rank: Rank) -> None:
    method, store = components.method, rank.rendezvous.store
    n, workers, seed = components.parameters, components.workers, components.cfg.seed
    # Only to say what messages look like and cost; the memory itself is found by its name in the store.
    owner = MemoryServer(method, store, components.samples)
    _serve_half(components, rank, owner, lambda: MemoryWorker(method, store, n=n, workers=workers, seed=seed))


def _serve_half(
    components: RunComponents, rank: Rank, server: ParameterServer, make_half: Callable[[], Worker]
) -> None:
    """Be one worker of a server until the run ends.

    Args:
        components: of the run.
        rank: of this worker.
        server: says what messages look like; the one that serves is another process's.
        make_half: makes the worker half. It is called when the link is there: the half of a shared memory waits for
            the server to name the memory.
    """
    worker, n = rank.rendezvous.rank - 1, components.parameters
    link = Link(rank.rendezvous, worker)
    process = WorkerProcess(
        make_half(),
        link,
        worker=worker,
        layout=server.layout(n),
        oracle=components.oracle,
        batches=components.batches,
        clock=components.clock(),
        gradients=server.evaluations,
        workers=components.workers,
        period=server.period,
        rounds=server.rounds(n),
        restoring=server.restoring(n),
        shard_gradients=server.barrier_cost.gradients,
        stops=server.stops,
        report_step=rank.report_step,
    )
    rank.measure(process_calls.worker_calls(process))
    process.run()


TOPOLOGIES: Mapping[type[Stateful], Topology] = {
    ParameterServer: Topology(
        "a parameter server",
        _simulated_server,
        _process_server,
        costs.server_costs,
        clocks.time_server,
        simulated_calls.server_calls,
        process_calls.server_calls,
        serve=_serve,
        tasks=compute.server_tasks,
    ),
    Collective: Topology(
        "combinations",
        _simulated_collective,
        _process_collective,
        costs.collective_costs,
        clocks.time_collective,
        simulated_calls.collective_calls,
        process_calls.collective_calls,
        tasks=compute.step_tasks,
    ),
    SharedMemory: Topology(
        "one vector of weights in shared memory",
        _simulated_memory,
        _memory_owner,
        costs.memory_costs,
        clocks.time_memory,
        simulated_calls.memory_calls,
        process_calls.server_calls,
        serve=_serve_memory,
        tasks=compute.memory_tasks,
    ),
    # Neighbours send to each other whenever they are ready; over NCCL their messages would have to come in order.
    Pipeline: Topology(
        "modules of a network",
        _simulated_pipeline,
        _process_pipeline,
        costs.pipeline_costs,
        clocks.time_pipeline,
        simulated_calls.pipeline_calls,
        process_calls.pipeline_calls,
        tasks=compute.module_tasks,
        meets_on_cpu=True,
    ),
}
