"""What runs the clock of a simulation alone, without its network; one function a topology, for `train.timing_only`."""

from __future__ import annotations

from algorithms.base import Collective, ParameterServer
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.config.errors import InputError
from runner.loop.batches import coordinate_generator
from runner.run_folder.timeline_totals import TimelineTotals
from runner.simulated.collective_clock import clock_of
from runner.simulated.events import ClockEvents
from runner.simulated.memory_clock import MemoryClock
from runner.simulated.pipeline_clock import PipelineClock
from runner.simulated.timing_memory import TimingMemory
from runner.simulated.timing_server import TimingServer
from runner.simulated.timing_steps import TimingCollective, TimingPipeline
from runner.simulated.timing_windows import MANY, TimingWindows
from runner.train.components import RunComponents


def time_server(components: RunComponents) -> TimingServer:
    """Return the pushes of a parameter server.

    Raises:
        InputError: which of them come follows from the method's own state.
    """
    method: ParameterServer = components.method
    if type(method).admits is not ParameterServer.admits or method.stops:
        what = f"who waits or is stopped follows from what algorithm={components.cfg.names.algorithm} was pushed"
        raise InputError.of("run.timing_only", True, what, "false")
    timeline, n = TimelineTotals(components.workers), components.parameters
    events = ClockEvents(components.clock(), timeline, layout=method.layout(n), workers=components.workers)
    # In a window every worker takes one batch.
    run = TimingWindows if components.workers >= MANY and method.period == 1 else TimingServer
    return run(method, events, parameters=n, batches=components.batches, timeline=timeline)


def time_collective(components: RunComponents) -> TimingCollective:
    """Return the steps of a collective method."""
    method: Collective = components.method
    timeline = TimelineTotals(components.workers)
    clock = clock_of(method, components.clock(), timeline, components.parameters)
    return TimingCollective(
        clock,
        period=method.period,
        delay=method.delay,
        early=method.early,
        batches=components.batches,
        timeline=timeline,
    )


def time_memory(components: RunComponents) -> TimingMemory:
    """Return the updates of a shared memory."""
    method: SharedMemory = components.method
    timeline, n = TimelineTotals(components.workers), components.parameters
    return TimingMemory(
        method,
        MemoryClock(components.clock(), timeline, elements=n),
        written=written_elements(components),
        batches=components.batches,
        timeline=timeline,
    )


def written_elements(components: RunComponents) -> int:
    """Return how many elements of a shared memory an update writes."""
    # Those of the first batch: only their number counts, and a method draws as many for each.
    n = components.parameters
    drawn = components.method.coordinates(n, coordinate_generator(components.cfg.seed, 0))
    return n if drawn is None else len(drawn)


def time_pipeline(components: RunComponents) -> TimingPipeline:
    """Return the iterations of a pipeline."""
    methods: list[Pipeline] = components.methods()
    for rank, (method, stage) in enumerate(zip(methods, components.partition.stages, strict=True)):
        # What a method computes besides its passes is known when it knows its module.
        method.setup(stage.weights, components.partition.stage_info(rank))
    timeline = TimelineTotals(components.workers)
    clock = PipelineClock(
        components.clock(),
        timeline,
        methods=methods,
        partition=components.partition,
        batch_size=components.batches.size,
    )
    return TimingPipeline(clock, batches=components.batches, timeline=timeline)
