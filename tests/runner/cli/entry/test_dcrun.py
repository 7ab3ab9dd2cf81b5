"""The package `dcrun`: as files of a clone, and as what a wheel installs."""

import json
import os
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from runner.cli.compose import CONF
from runner.config import installation

CLONE = CONF.parent
ENTRY = CLONE / "runner" / "cli" / "entry"
TINY = ["model=linear", "run.epochs=1", "run.threads=1", "logger=none"]
MINE = """
from pathlib import Path

import algorithms
import data
from models.linear import Linear

class Mine(Linear):
    def __init__(self, **options):
        Path("ours.txt").write_text(f"{algorithms.__file__} {data.__file__}")
        super().__init__(**options)
"""


def run(command: list[str], folder: Path, *path: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with nothing but `path` in PYTHONPATH."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A folder of the user's with packages that have our names, and a module with a model."""
    for name in ("models", "data", "algorithms", "runner"):
        (tmp_path / "user" / name).mkdir(parents=True)
        (tmp_path / "user" / name / "__init__.py").write_text(f"raise SystemExit('the user has imported {name}')\n")
    (tmp_path / "user" / "models" / "linear.py").write_text("class Net:\n    pass\n")
    (tmp_path / "user" / "mine.py").write_text(MINE)
    return tmp_path / "user"


@pytest.mark.parametrize("module", ["dcrun", "runner.cli"])
def test_clones_packages_come_before_the_current_folders(module: str, user: Path):
    if module == "runner.cli":
        (user / "runner" / "__init__.py").unlink()  # theirs would be the one that `-m runner.cli` starts
        (user / "runner").rmdir()
    start = f"runpy.run_module({module!r}, run_name='__main__')"
    code = f"import runpy, sys; sys.argv[1:] = ['--help']\ntry:\n    {start}\nfinally:\n    print('taken down')"
    done = run([sys.executable, "-c", code], user, *([ENTRY] if module == "dcrun" else [CLONE]))
    assert "algorithm=asgd" in done.stdout
    # Whoever waits for the command does not wait for Python to take down what it has imported.
    assert "taken down" not in done.stdout


COMMANDS = {"dcrun": "main", "dcreport": "report", "dcrun-check": "check", "dcrun-fit": "fit"}


@pytest.mark.parametrize(("command", "function"), COMMANDS.items())
def test_module_loaded_before_is_refused(command: str, function: str, user: Path):
    (user / "data" / "__init__.py").write_text("")
    code = f"import sys, data, dcrun; sys.exit(dcrun.{function}())"
    done = run([sys.executable, "-c", code], user, ENTRY, code=2)
    theirs = user / "data" / "__init__.py"
    what = f"data is dcrun's ({CLONE / 'data'}), and yours ({theirs}) has the same name and was loaded before"
    assert done.stderr == f"{command}: {what}; rename yours\n"


def test_entry_names_the_folders_of_the_installation():
    """The entry may import nothing of the project, so it repeats what `runner.config.installation` says."""
    entry = runpy.run_path(str(ENTRY / "dcrun" / "__init__.py"))
    assert (entry["NAMES"], entry["ROOT"]) == (installation.NAMES, installation.ROOT)


def test_import_alone_leaves_the_path_as_it_is():
    code = (
        "import sys; path = [*sys.path]; import dcrun; print(path == sys.path, {'runner', 'torch'} & set(sys.modules))"
    )
    assert run([sys.executable, "-c", code], ENTRY, ENTRY).stdout == "True set()\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason='pip install -e ".[test]"')
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(CLONE)], check=True, timeout=300)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into; all that it needs comes from this interpreter's own."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True, timeout=300)
    return folder


@pytest.mark.slow
def test_wheel_has_one_package_with_all_files(wheel: Path):
    build = tomllib.loads((CLONE / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    folders = build["wheel"]["only-include"]
    assert {"algorithms", "conf", "data", "models", "runner", "tests/algorithms/test_methods.py"} <= {*folders}
    assert build["sdist"]["only-include"] == folders
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=CLONE,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {name for name in tracked.stdout.split() if (CLONE / name).exists()}
    expected = {f"dcrun/{name.removeprefix('runner/cli/entry/dcrun/')}" for name in expected}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {"dcrun/conf/config.yaml", "dcrun/runner/report/templates/report.css", "dcrun/__main__.py"} <= found


@pytest.mark.slow
def test_installed_has_one_name(site: Path):
    installed = {path.name.partition("-")[0] for path in site.iterdir()} - {"bin"}
    assert installed == {"dcrun"}
    assert {path.name for path in (site / "bin").iterdir() if path.is_file()} == {*COMMANDS}


@pytest.mark.slow
def test_installed_commands_beside_the_users_packages(site: Path, user: Path):
    dcrun = [sys.executable, str(site / "bin" / "dcrun")]
    assert "dc_asgd_a" in run([*dcrun, "--help"], user, site, user).stdout
    run([*dcrun, *TINY, "model._target_=mine.Mine", "hydra.run.dir=a"], user, site, user)
    assert (user / "ours.txt").read_text().split() == [
        str(site / "dcrun" / name / "__init__.py") for name in ("algorithms", "data")
    ]
    run([sys.executable, "-m", "dcrun", "-m", *TINY, "seed=0,1", "hydra.sweep.dir=sweep"], user, site)
    processes = ["algorithm=asgd", "cluster=processes"]
    run([*dcrun, *TINY, *processes, "cluster.workers=1", "hydra.run.dir=spawned"], user, site)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "dcrun"]
    run([*torchrun, *TINY, *processes, "hydra.run.dir=joined"], user, site)
    ended = {}
    for summary in user.glob("**/summary.json"):
        ended[str(summary.parent.relative_to(user))] = json.loads(summary.read_text())
    assert set(ended) == {"a", "sweep/0", "sweep/1", "spawned", "joined"}
    assert {summary["status"] for summary in ended.values()} == {"completed"}
    # One worker, spawned or joined: the same arithmetic.
    assert ended["spawned"]["weights_sha256"] == ended["joined"]["weights_sha256"]
    assert run([sys.executable, str(site / "bin" / "dcreport"), "."], user, site).stdout == "5 runs -> report.html\n"
    fitted = run([sys.executable, str(site / "bin" / "dcrun-fit"), "spawned"], user, site).stdout
    assert "defaults: [simulated, _self_]" in fitted


@pytest.mark.slow
def test_installed_submits_jobs(site: Path, user: Path):
    pytest.importorskip("submitit", reason='pip install -e ".[submitit]"')
    launcher = ["hydra/launcher=submitit_local", "hydra.sweep.dir=submitted"]
    run([sys.executable, str(site / "bin" / "dcrun"), "-m", *launcher, *TINY, "seed=0"], user, site)
    assert json.loads((user / "submitted" / "0" / "summary.json").read_text())["status"] == "completed"


@pytest.mark.slow
def test_installed_refuses_the_users_module_of_its_name(site: Path, user: Path):
    dcrun = [sys.executable, str(site / "bin" / "dcrun")]
    done = run([*dcrun, *TINY, "model._target_=models.linear.Net"], user, site, code=2)
    ours, theirs = site / "dcrun" / "models" / "__init__.py", user / "models" / "linear.py"
    same = f"models is dcrun's ({ours}), and yours ({theirs}) has the same name; rename yours"
    assert done.stderr == f"dcrun: models.linear.Net: {same}\n"
