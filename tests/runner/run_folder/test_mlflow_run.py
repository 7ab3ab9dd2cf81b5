import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.config.errors import InputError
from runner.run_folder.mlflow_run import MlflowRun, flat


class Store:
    """MLflow's client as far as a run uses it; all clients have one store."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.uris: list[str | None] = []

    def __call__(self, tracking_uri: str | None) -> "Store":
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        found = self.experiments.get(name)
        return None if found is None else SimpleNamespace(experiment_id=found)

    def create_experiment(self, name: str) -> str:
        self.experiments[name] = f"id of {name}"
        return self.experiments[name]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        run_id = str(len(self.runs))
        own = {"experiment": experiment, "name": run_name, "tags": tags, "params": {}, "metrics": defaultdict(list)}
        self.runs[run_id] = {**own, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        for key, value, _, step in metrics:
            self.runs[run_id]["metrics"][key].append((step, value))
        self.runs[run_id]["params"] |= dict(params)

    def get_metric_history(self, run_id: str, key: str) -> Any:
        return [SimpleNamespace(step=step) for step, _ in self.runs[run_id]["metrics"][key]]

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status

    set_terminated = update_run


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    entities = SimpleNamespace(Metric=lambda *values: values, Param=lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=store))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)  # type: ignore[arg-type]
    return store


def begin(run_id: str | None = None, uri: str | None = None) -> MlflowRun:
    config = {"seed": 3, "algorithm": {"lr": 0.5, "long": "x" * 900}, **{f"key{n}": n for n in range(120)}}
    return MlflowRun(Path("outputs/a"), config, tracking_uri=uri, experiment="dcrun", group="s", run_id=run_id)


def row(epoch: int) -> dict[str, Any]:
    return {"epoch": float(epoch), "samples": 100 * epoch, "test_error": 10.0 * epoch, "lr": None}


def test_run_that_goes_on_is_one_run(store: Store):
    first = begin(uri="sqlite:///a.db")
    first.take_over([])
    for epoch in (1, 2):
        first.log(row(epoch))
    again = begin(run_id=first.id)
    again.take_over([row(1)])
    for epoch in (2, 3):
        again.log(row(epoch))
    again.finish({"status": "completed", "best_test_error": 10.0, "samples": 300})
    [run] = store.runs.values()
    assert run["metrics"]["test_error"] == [(100, 10.0), (200, 20.0), (300, 30.0)]
    assert run["metrics"]["best_test_error"] == [(0, 10.0)]
    assert len(run["metrics"]["samples"]) == 3, "the summary's is that of the last row"
    assert "lr" not in run["metrics"]
    assert (run["status"], run["name"], run["experiment"]) == ("FINISHED", "a", "id of dcrun")
    assert run["tags"] == {"folder": "outputs/a", "group": "s"}
    assert run["params"]["algorithm.lr"] == "0.5"
    assert len(run["params"]["algorithm.long"]) == 500
    assert store.uris == ["sqlite:///a.db", None]


@pytest.mark.parametrize(("status", "state"), [("interrupted", "KILLED"), ("diverged", "FAILED"), ("failed", "FAILED")])
def test_end_is_told_in_mlflows_words(status: str, state: str, store: Store):
    run = begin()
    run.finish({"status": status})
    assert store.runs[run.id]["status"] == state


def test_experiment_made_by_another_job_is_taken(store: Store, monkeypatch: pytest.MonkeyPatch):
    def race(name: str) -> str:
        store.experiments[name] = "theirs"
        raise RuntimeError("RESOURCE_ALREADY_EXISTS")

    monkeypatch.setattr(store, "create_experiment", race)
    assert store.runs[begin().id]["experiment"] == "theirs"


def test_store_that_cannot_be_reached_is_wrong_input(store: Store, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise ConnectionError("connection refused\nmore")

    monkeypatch.setattr(store, "get_experiment_by_name", refuse)
    with pytest.raises(InputError, match=r"^logger\.tracking_uri=http://a: MLflow cannot begin \(connection refused\)"):
        begin(uri="http://a")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"^logger=mlflow: .*pip install 'dcrun\[mlflow\]'"):
        begin()


def test_flat_names_leaves_with_dots():
    assert flat({"a": {"b": {"c": 1}, "d": [1]}, "e": None}) == {"a.b.c": 1, "a.d": [1], "e": None}


def test_real_library_keeps_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    # A database needs more than the part of MLflow that clients have.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path / 'store'}"
    first = begin(uri=uri)
    first.take_over([])
    for epoch in (1, 2):
        first.log(row(epoch))
    again = begin(run_id=first.id, uri=uri)
    again.take_over([row(1)])
    for epoch in (2, 3):
        again.log(row(epoch))
    again.finish({"status": "completed", "best_test_error": 10.0})
    import mlflow  # pyright: ignore[reportMissingImports]

    client = mlflow.MlflowClient(tracking_uri=uri)
    history = client.get_metric_history(first.id, "test_error")
    assert [(metric.step, metric.value) for metric in history] == [(100, 10.0), (200, 20.0), (300, 30.0)]
    run = client.get_run(first.id)
    assert (run.info.status, run.data.params["algorithm.lr"]) == ("FINISHED", "0.5")
