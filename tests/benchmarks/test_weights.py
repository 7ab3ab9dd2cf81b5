import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import weights
from weights_rows import KINDS, rows

from runner.run_folder.jsonl import to_line

REPOSITORY = Path(__file__).resolve().parents[2]
METHODS = {path.stem for path in (REPOSITORY / "conf" / "algorithm").glob("*.yaml")}


def table(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, REPOSITORY / "benchmarks" / "weights.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_every_method_has_its_rows():
    of = {kind: {name.partition(",")[0] for name in special} for kind, special in KINDS.items()}
    assert of["simulated"] == METHODS
    assert of["processes"] == METHODS
    assert of["replay"] <= METHODS


def test_rows_set_no_key_twice():
    for name, overrides in rows().items():
        keys = [override.partition("=")[0] for override in overrides]
        assert len(keys) == len(set(keys)), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"weights_sha256": "b"}, "weights_sha256"),
        ({"metrics_sha256": "b", "updates": 2}, "metrics_sha256, updates"),
        ({"overrides": ["algorithm=ssgd"]}, "has other settings now"),
    ],
)
def test_difference_names_what_differs(change: dict[str, Any], said: str):
    row = {"overrides": ["algorithm=sgd"], "weights_sha256": "a", "metrics_sha256": "a", "updates": 1}
    assert weights.difference(row, row | change) == said
    assert weights.difference(None, row) == "is new"
    assert weights.difference(row, None) == "is no longer made"


def test_another_instruction_set_is_refused(tmp_path: Path):
    other = tmp_path / "other.json"
    torch = pytest.importorskip("torch").__version__
    other.write_text(json.dumps({"about": {"isa": "Z80", "torch": torch}, "rows": {}}))
    refused = table("--compare", other, "--only", "simulated: sdca")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "isa Z80 there, " in refused.stderr


@pytest.mark.slow
def test_comparison_finds_changed_weights(tmp_path: Path):
    first, only = tmp_path / "first.json", ("--only", "dis_dfsdca, barriers")
    assert table("--write", first, *only).returncode == 0
    again = table("--compare", first, *only)
    assert again.returncode == 0
    assert "1 rows equal, 0 differ" in again.stdout
    document = json.loads(first.read_text())
    [row] = document["rows"].values()
    row["weights_sha256"] = row["weights_sha256"][::-1]
    first.write_text(json.dumps(document))
    changed = table("--compare", first, *only)
    assert changed.returncode == 1
    assert "differs: weights_sha256" in changed.stdout


def test_metrics_are_hashed_without_later_columns():
    rows = [{"epoch": 1.0, "train_loss": 0.1 + 0.2, "lr": 1e-05, "staleness_max": None}, {"epoch": 2.0, "samples": 7}]
    before = "".join(to_line(row) for row in rows)
    after = "".join(to_line({**row, "bytes_sent": 2600}) for row in rows)
    assert weights.metrics_sha256(before) == weights.metrics_sha256(after)
    assert weights.metrics_sha256(before) == hashlib.sha256(before.encode()).hexdigest()
