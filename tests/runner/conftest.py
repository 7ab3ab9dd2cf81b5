"""Run folders as runs leave them, made up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

MakeRun = Callable[..., Path]


def rows(errors: list[float | None], *, seconds: float = 10.0, every: float = 1.0) -> list[dict[str, Any]]:
    return [
        {"epoch": every * k, "samples": int(1000 * every * k), "updates": int(10 * every * k),
         "seconds": seconds * every * k, "train_loss": 2.0 / (every * k),
         "train_error": None if error is None else error - 1, "test_error": error, "lr": 0.5}
        for k, error in enumerate(errors, start=1)
    ]  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes `<tmp>/runs/<name>`: an algorithm's run with the test errors given, one every so many effective passes."""
    return runs_below(tmp_path)


def runs_below(place: Path) -> MakeRun:
    """Return what writes runs below `<place>/runs`."""

    def make(
        name: str,
        errors: list[float | None],
        *,
        algorithm: str = "asgd",
        workers: int = 4,
        seed: int = 0,
        status: str = "completed",
        seconds: float = 10.0,
        every: float = 1.0,
        config: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
        model: str = "resnet20",
        dataset: str = "cifar10",
    ) -> Path:
        folder = place / "runs" / name
        (folder / ".hydra").mkdir(parents=True)
        lines = rows(errors, seconds=seconds, every=every)
        composed: dict[str, Any] = {
            "seed": seed,
            "algorithm": {"_target_": "algorithms.asgd.ASGD", "momentum": 0.0},
            "model": {"_target_": "models.resnet.ResNet", "depth": 20},
            "dataset": {
                "_target_": "data.cifar.CIFAR10",
                "root": f"/data/{seed}",
                "limit_train": 1000,
                "augment": True,
            },
            "cluster": {"kind": "simulated", "workers": workers},
            "schedule": {"kind": "constant", "lr": 0.5},
            "run": {"name": "dcrun", "epochs": every * len(errors), "batch_size": 128, "precision": "fp32"},
        }
        for key, value in (config or {}).items():
            *sections, last = key.split(".")
            inner = composed
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[last] = value
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(composed), encoding="utf-8")
        overrides = [f"algorithm={algorithm}", f"seed={seed}", "hydra.run.dir=x"]
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides), encoding="utf-8")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        known = [error for error in errors if error is not None]
        document = {
            "status": status, "algorithm": algorithm, "model": model, "dataset": dataset, "cluster": "simulated",
            "workers": workers, "seed": seed, "epochs": every * len(errors), "samples": int(1000 * every * len(errors)),
            "final_test_error": errors[-1] if errors else None, "best_test_error": min(known, default=None),
            "final_train_loss": 2.0, "seconds": seconds * every * len(errors), "clock": "virtual", "wall_seconds": 36.0,
            "device_name": "a processor", "cores": 2, "threads": 1, "git_commit": "0123456789" * 4,
            "versions": {"torch": "2.15.0"}, **(summary or {}),
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(document), encoding="utf-8")
        return folder

    return make
