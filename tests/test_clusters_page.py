"""The commands of `docs/clusters.md` run as they stand there."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trial import rows, when

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
[SCRIPT] = re.findall(r"```bash\n(#!/bin/bash.*?)```", PAGE, re.DOTALL)


def test_the_slurm_script_is_correct_shell(tmp_path: Path):
    (tmp_path / "job.sh").write_text(SCRIPT)
    subprocess.run(["bash", "-n", "job.sh"], cwd=tmp_path, check=True)


def stand_ins(folder: Path) -> dict[str, str]:
    """Programs in place of SLURM's: one node, whose steps run here, and jobs that are queued again into a file."""
    programs = {
        "srun": '#!/bin/sh\nexec "$@"\n',
        "scontrol": '#!/bin/sh\n[ "$1" = show ] && echo localhost || echo "$@" >> requeued\n',
        "torchrun": f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n',
        # In a clone, `dcrun` is not a module of its own.
        "dcrun.py": "import importlib\nimport sys\n\nsys.exit(importlib.import_module('runner.cli.main').main())\n",
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{folder}"}
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost"}
    return {**os.environ, **paths, **slurm, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_slurm_script_goes_on_where_it_was_stopped(tmp_path: Path):
    small = "model=mlp logger=none run.epochs=20 cluster.compute.seconds=0.01 dataset.limit_train=200"
    (tmp_path / "job.sh").write_text(SCRIPT.replace("model=resnet20", small).replace("29500", "29517"))
    environment = stand_ins(tmp_path)
    run = tmp_path / "outputs" / "slurm-7"
    with subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env=environment, start_new_session=True) as job:

        def time_is_up() -> None:
            # As SLURM does: to the processes of the step, not to the script.
            listed = subprocess.run(["pgrep", "-g", str(job.pid)], capture_output=True, text=True, check=True).stdout
            for pid in {int(line) for line in listed.split()} - {job.pid}:
                os.kill(pid, signal.SIGTERM)

        when(lambda: rows(run) > 2, time_is_up).join()
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment, check=False)
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert rows(run) == 20
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
