"""The one table of topologies, and that nothing else tells the protocols apart."""

import ast
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.utils import get_class

from algorithms.base import Collective, ParameterServer
from algorithms.pipeline import Pipeline
from algorithms.shared_memory import SharedMemory
from runner.cli.compose import CONF
from runner.loop.executor import Executor
from runner.processes.rendezvous import file_rendezvous
from runner.run_folder.trace import Trace
from runner.simulated.collective import SimulatedCollective
from runner.simulated.events import ClockEvents, TraceEvents
from runner.simulated.pipeline import SimulatedPipeline
from runner.simulated.server import SimulatedServer
from runner.simulated.shared_memory import SimulatedMemory
from runner.train import executors
from runner.train.build import build_run
from runner.train.components import RunComponents
from runner.train.executors import TOPOLOGIES, topology_of
from tests.trial import Trial, compose

SMALL = ("model=mlp", "model.widths=[8]", "dataset.limit_train=32", "dataset.limit_test=8", "run.batch_size=4")
PROTOCOLS = ("ParameterServer", "Collective", "SharedMemory", "Pipeline")


def components(*overrides: str) -> RunComponents:
    return build_run(compose(*SMALL, *overrides))


@pytest.mark.parametrize(
    ("algorithm", "protocol", "executor"),
    [
        ("dc_asgd_a", ParameterServer, SimulatedServer),
        ("ssgd", Collective, SimulatedCollective),
        ("hogwild", SharedMemory, SimulatedMemory),
        ("ddg", Pipeline, SimulatedPipeline),
    ],
)
def test_method_gets_its_protocols_executor(algorithm: str, protocol: type, executor: type, tmp_path: Path):
    trial = Trial(*SMALL, f"algorithm={algorithm}", folder=tmp_path)
    assert topology_of(type(trial.components.method)) is topology_of(trial.components.cfg) is TOPOLOGIES[protocol]
    assert type(trial.executor) is executor
    assert isinstance(trial.executor, Executor)


def test_every_option_has_one_topology():
    for path in sorted((CONF / "algorithm").glob("*.yaml")):
        target = next(line.split()[1] for line in path.read_text().splitlines() if line.startswith("_target_:"))
        algorithm = get_class(target)
        assert sum(issubclass(algorithm, protocol) for protocol in TOPOLOGIES) == 1, path.name


@pytest.mark.parametrize(("algorithm", "servers"), [("asgd", 1), ("hogwild", 1), ("ssgd", 0), ("ddg", 0)])
def test_servers_are_ranks_besides_workers(algorithm: str, servers: int):
    assert topology_of(compose(f"algorithm={algorithm}")).servers == servers


def test_replicated_methods_are_simulated_once(tmp_path: Path):
    one: Any = Trial(*SMALL, "algorithm=ssgd", "cluster.workers=3", folder=tmp_path).executor
    all_: Any = Trial(*SMALL, "algorithm=local_sgd", "cluster.workers=3", folder=tmp_path).executor
    assert (len(one.methods), len(all_.methods)) == (1, 3)
    assert len({id(method) for method in all_.methods}) == 3


def test_trace_takes_the_clocks_place(tmp_path: Path):
    run = components("algorithm=asgd", "cluster.workers=2")
    trace = Trace(tmp_path, run.trace_facts(), [])
    clocked: Any = executors.simulated(run, run.train_control())
    replayed: Any = executors.simulated(run, run.train_control(), trace=trace)
    assert type(clocked.events) is ClockEvents
    assert type(replayed.events) is TraceEvents


@pytest.mark.parametrize(("record", "recorded"), [("true", True), ("false", False), ("null", False)])
def test_simulation_records_if_asked(record: str, recorded: bool, tmp_path: Path):
    run = components("algorithm=asgd", f"cluster.record={record}")
    executor: Any = executors.simulated(run, run.train_control(), tmp_path)
    assert (executor.recorder is not None) is recorded


def test_shared_memory_is_removed_when_the_rank_ends(tmp_path: Path):
    """Its name goes, also if no worker ever came."""
    run = components("algorithm=hogwild", "cluster=processes", "cluster.workers=1")
    with contextlib.ExitStack() as at_end:
        rendezvous = file_rendezvous(str(tmp_path / "store"), 0, 2, 5.0)
        rank = executors.Rank(rendezvous, tmp_path, list, lambda step: None, at_end, lambda calls: None)
        # What the links to workers would need is not there; the memory is made before them.
        owner_made: list[Path] = []

        def no_links(components: Any, rank: Any, control: Any, owner: Any) -> Any:
            owner.start(run.oracle.replica.weights.clone(), 1)
            owner_made.append(Path(owner._path))
            assert owner_made[0].exists()
            assert owner.rate().lr == run.schedule.at(0).lr
            return SimpleNamespace()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(executors, "_process_server", no_links)
            topology_of(run.cfg).on_process(run, rank, run.train_control())
        assert owner_made[0].exists()
    assert not owner_made[0].exists()


def test_only_the_table_tells_protocols_apart():
    """`isinstance` and `issubclass` of a protocol, in any file of `runner`."""
    found = []
    for path in sorted((Path(executors.__file__).parents[1]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass")):
                continue
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            if node.func.id == "issubclass" or asked & set(PROTOCOLS):  # type: ignore[attr-defined]
                found.append(path.name)
    assert found == ["executors.py"]
