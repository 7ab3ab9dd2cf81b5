"""Writes the run folders beside this file: runs of an earlier commit, for which later ones must still have a use.

    git worktree add --detach /tmp/old <commit>
    python tests/runner/old_runs/make.py /tmp/old [run ...]

Those in `STOPPED` are ended by SIGTERM on their way and leave a checkpoint; `expected.json` says what the same runs end
with if nothing stops them. Those in `TRACED` ran on several processes and leave a trace. Of Hydra's own record only
what a run needs is kept, and nothing names a folder of the machine that the runs were made on.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
SETTING = ("logger=none", "run.threads=1", "run.device=cpu", "run.keep_checkpoints=1", "run.batch_size=8")
# An evaluation sample by sample takes long enough for a signal to find the run on its way.
DATA = ("dataset=synthetic", "dataset.train=90", "dataset.test=300", "run.eval_batch_size=1", "run.eval_every=0.5")
NETWORK = ("model=mlp", "model.widths=[8,7]", "dataset.shape=[6]", "dataset.classes=3", "run.epochs=6")
RIDGE = ("model=ridge", "dataset.shape=[10]", "dataset.classes=2", "dataset.noise=2.0", "run.epochs=6")
CLOCK = ("cluster.workers=3", "cluster.compute.distribution=gamma", "cluster.network.latency=0.1")
FALL = ("schedule=multistep", "schedule.lr=0.2", "schedule.milestones=[2,4]", "schedule.warmup_epochs=1")
PROCESSES = ("cluster=processes", "cluster.compute.seconds=0.005")
MOMENTUM = ("algorithm.momentum=0.9",)
SVRG = ("algorithm.inner=15", "algorithm.sgd_epochs=1")

STOPPED = {
    "dc_asgd_a": (*NETWORK, *CLOCK, *FALL, *MOMENTUM, "algorithm=dc_asgd_a", "algorithm.lambda_schedule=inverse_lr"),
    "dasgd": (*NETWORK, *CLOCK, *FALL, *MOMENTUM, "algorithm=dasgd", "algorithm.tau=4", "algorithm.delay=3"),
    "fr": (*NETWORK, *CLOCK, *FALL, *MOMENTUM, "algorithm=fr", "run.epochs=4"),
    "shared_asysvrg": (*NETWORK, *CLOCK, *SVRG, "algorithm=shared_asysvrg", "algorithm.coordinates=20"),
    "dis_dfsdca": (*RIDGE, *CLOCK, "schedule.lr=0.05", "algorithm=dis_dfsdca", "algorithm.inner=7"),
    "ssgd_processes": (*NETWORK, *PROCESSES, *FALL, *MOMENTUM, "algorithm=ssgd", "cluster.workers=2"),
    "ddg_processes": (*NETWORK, *PROCESSES, *FALL, *MOMENTUM, "algorithm=ddg", "cluster.workers=2"),
    "asysvrg_processes": (*NETWORK, *PROCESSES, *SVRG, "algorithm=asysvrg", "cluster.workers=1"),
}
TRACED = {
    "asgd_traced": (*NETWORK, *PROCESSES, *FALL, "algorithm=asgd", "cluster.workers=3", "run.epochs=3"),
    "asysvrg_traced": (*NETWORK, *PROCESSES, *SVRG, "algorithm=asysvrg", "cluster.workers=3"),
    "dis_dfsdca_traced": (
        *RIDGE,
        *PROCESSES,
        "schedule.lr=0.05",
        "algorithm=dis_dfsdca",
        "algorithm.inner=7",
        "run.epochs=2",
    ),
}
FACTS = ("weights_sha256", "buffers_sha256", "updates", "samples")
MACHINE = ("isa", "cpu", "git_commit")


def main(checkout: Path, names: Sequence[str]) -> int:
    """Make the runs named, by default all, with the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    answer = HERE / "expected.json"
    expected = json.loads(answer.read_text())["runs"] if names else {}
    with tempfile.TemporaryDirectory(prefix="dcrun-old-") as name:
        runs = Path(name)
        for run in names or (*STOPPED, *TRACED):
            overrides = (STOPPED | TRACED)[run]
            command = [sys.executable, "-m", "runner.cli", *SETTING, *DATA, *overrides]
            summary = _whole([*command, f"hydra.run.dir={run}"], runs, environment)
            expected[run] = {key: summary[key] for key in FACTS}
            machine = {key: summary[key] for key in MACHINE} | {"torch": summary["versions"]["torch"]}
            if run in STOPPED:
                shutil.rmtree(runs / run)
                _stopped([*command, f"hydra.run.dir={run}"], runs, environment, runs / run)
            else:
                shutil.rmtree(runs / run / "checkpoints")
                (runs / run / "timeline.jsonl").unlink()
            _keep(runs / run, HERE / run, runs)
            print(run, flush=True)
    document = {"machine": machine, "runs": expected}
    answer.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _whole(command: list[str], place: Path, environment: dict[str, str]) -> dict[str, Any]:
    subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    folder = place / command[-1].partition("=")[2]
    return json.loads((folder / "summary.json").read_text())


def _stopped(command: list[str], place: Path, environment: dict[str, str], folder: Path) -> None:
    """Run until there are three evaluations, then stop."""
    process = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.DEVNULL)
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    if process.wait(60) != 128 + signal.SIGTERM:
        raise RuntimeError(f"{folder.name} ended with {process.returncode}: it was over before it could be stopped")


def _keep(run: Path, kept: Path, runs: Path) -> None:
    """Copy a run folder without the names of this machine's folders."""
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(run, kept)
    hydra = kept / ".hydra" / "hydra.yaml"
    record = yaml.safe_load(hydra.read_text())["hydra"]
    runtime = {key: record["runtime"][key] for key in ("version", "choices")}
    hydra.write_text(yaml.safe_dump({"hydra": {"overrides": record["overrides"], "runtime": runtime}}))
    log = kept / "dcrun.log"
    log.write_text(log.read_text().replace(str(runs), "/runs"))
    named = [path for path in kept.rglob("*") if path.is_file() and str(runs).encode() in path.read_bytes()]
    if named:
        raise RuntimeError(f"{named[0]} names a folder of this machine")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
