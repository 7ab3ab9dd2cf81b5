"""A release: wheel and sdist are built, installed into environments of their own, and run beside a user's code."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

from runner.config.installation import ROOT

pytestmark = pytest.mark.slow
SHORT = ["run.epochs=1", "run.batch_size=16", "run.threads=1", "logger=none", "cluster.workers=2"]
OWN = ["algorithm=mine", "model=mine", "dataset=mine", *SHORT]
FILES = {
    "algorithms/__init__.py": "raise SystemExit('imported')\n",
    "algorithms/mine.py": "from algorithms.asgd import ASGD\n\n\nclass Mine(ASGD):\n    pass\n",
    "models/__init__.py": "raise SystemExit('imported')\n",
    "models/mine.py": """
from torch import nn

from parts import flat


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear = nn.Linear(16, classes)

    def forward(self, inputs):
        return self.linear(flat(inputs))
""",
    "data/__init__.py": "raise SystemExit('imported')\n",
    "data/mine.py": """
import torch
from torch.utils.data import Dataset


class Pairs(Dataset):
    def __init__(self, n):
        self.inputs = torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(n))

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, number):
        return self.inputs[number], int(self.inputs[number].mean() > 0)
""",
    "parts.py": "def flat(inputs):\n    return inputs.flatten(1)\n",
    "random.py": "raise SystemExit('imported')\n",
    "conf/algorithm/mine.yaml": "_target_: algorithms.mine.Mine\n",
    "conf/model/mine.yaml": "_target_: models.mine.Net\n",
    "conf/dataset/mine.yaml": "defaults: [own]\ntrain: {_target_: data.mine.Pairs, n: 96}\n"
    "test: {_target_: data.mine.Pairs, n: 32}\n",
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make dist` fills."""
    pytest.importorskip("hatchling", reason='pip install -e ".[test]"')
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", folder], cwd=ROOT, check=True, timeout=300
    )
    return folder


def installed(release: Path, folder: Path) -> Path:
    """Install a release into an environment that sees what this one has; return where its commands are."""
    venv.create(folder)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "torch.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    # What this environment has of dcrun is not to be taken for the release.
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*command, *options, str(release)], check=True, timeout=300)
    assert (site / "dcrun" / "runner").is_dir()
    return folder / "bin"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A folder of the user's with options, and packages that have our names."""
    folder = tmp_path / "their project"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def run(command: list[str | Path], folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def summary(folder: Path) -> dict[str, object]:
    return json.loads((folder / "summary.json").read_text())


def test_sdist_holds_what_is_installed(dist: Path, tmp_path: Path):
    [sdist] = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "runner/cli/entry/dcrun/__init__.py", "conf/config.yaml"} <= names
    bin_folder = installed(sdist, tmp_path / "environment")
    assert run([bin_folder / "dcrun", "--version"], tmp_path).startswith("dcrun ")
    run([bin_folder / "dcrun", "algorithm=asgd", "model=linear", *SHORT, "hydra.run.dir=a"], tmp_path)
    assert summary(tmp_path / "a")["status"] == "completed"
    assert run([bin_folder / "dcreport", "a"], tmp_path).startswith("1 runs -> ")


def test_wheel_runs_the_users_code_everywhere(dist: Path, user: Path, tmp_path: Path):
    [wheel] = dist.glob("*.whl")
    bin_folder = installed(wheel, tmp_path / "environment")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    dcrun, outputs = bin_folder / "dcrun", tmp_path / "outputs"
    conf = ["--config-dir", user / "conf"]
    run([dcrun, *OWN, f"hydra.run.dir={outputs}/here"], user)
    run([dcrun, *conf, *OWN, f"hydra.run.dir={outputs}/there"], elsewhere)
    run([dcrun, *conf, *OWN, "run.compute_processes=2", f"hydra.run.dir={outputs}/pool"], elsewhere)
    run([dcrun, *conf, "-m", *OWN, "seed=0,1", f"hydra.sweep.dir={outputs}/sweep"], elsewhere)
    run([dcrun, *conf, *OWN, "cluster=processes", f"hydra.run.dir={outputs}/spawned"], elsewhere)
    torchrun = [bin_folder / "python", "-P", "-m", "torch.distributed.run", "--nproc-per-node", "3", dcrun]
    run([*torchrun, *conf, *OWN, "cluster=processes", f"hydra.run.dir={outputs}/joined"], elsewhere)
    # Continued and replayed where neither folder of options is named.
    shutil.copytree(outputs / "here", outputs / "longer")
    run([dcrun, f"run.resume={outputs}/longer", "run.evaluate_only=true"], tmp_path)
    run([dcrun, "cluster=replay", f"cluster.trace={outputs}/spawned", f"hydra.run.dir={outputs}/replayed"], tmp_path)
    ended = {path.parent.name: json.loads(path.read_text()) for path in outputs.rglob("summary.json")}
    assert {*ended} == {"here", "there", "pool", "0", "1", "spawned", "joined", "longer", "replayed"}
    assert {run["status"] for run in ended.values()} == {"completed"}
    # The same bits, wherever it was started and whoever computed.
    assert len({ended[name]["weights_sha256"] for name in ("here", "there", "pool", "0")}) == 1
    assert ended["replayed"]["weights_sha256"] == ended["spawned"]["weights_sha256"]


def test_wheel_checks_the_users_method(dist: Path, user: Path, tmp_path: Path):
    [wheel] = dist.glob("*.whl")
    check = installed(wheel, tmp_path / "environment") / "dcrun-check"
    (user / "algorithms" / "mine.py").write_text(
        "from algorithms.asgd import ASGD\n\n\nclass Mine(ASGD):\n    'ASGD.'\n"
    )
    (user / "conf" / "algorithm" / "mine.yaml").write_text("defaults: [asgd, _self_]\n_target_: algorithms.mine.Mine\n")
    (user / "tests").mkdir()
    (user / "tests" / "__init__.py").write_text("raise SystemExit('imported')\n")
    # One of each kind: in this process, by compute processes, on processes.
    said = run([check, user / "algorithms" / "mine.py", "-k", "arguments or continued or processes"], tmp_path)
    assert " passed" in said and "failed" not in said


def test_run_is_made_longer_elsewhere(dist: Path, user: Path, tmp_path: Path):
    [wheel] = dist.glob("*.whl")
    dcrun = installed(wheel, tmp_path / "environment") / "dcrun"
    run([dcrun, *OWN, f"hydra.run.dir={tmp_path}/a", "run.epochs=2", "algorithm=ssgd"], user)
    run([dcrun, f"run.resume={tmp_path}/a", "run.epochs=3"], tmp_path)
    assert summary(tmp_path / "a")["epochs"] == 3
