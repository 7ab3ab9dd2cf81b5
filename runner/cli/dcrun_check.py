"""The command `dcrun-check`: the suite that every method of dcrun passes, on a method that lies elsewhere.

dcrun-check algorithms/drop_stale.py       all options of conf/algorithm/ whose class is in that file
dcrun-check drop_stale                     one option, of conf/ here or of --config-dir
dcrun-check drop_stale --quick             without the tests that take longer than some seconds

The suite is `tests/algorithms/test_methods.py`, which an installed wheel has too; it needs pytest.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from runner.cli import own_folders
from runner.cli.one_line_parser import OneLineParser
from runner.config import yaml_text
from runner.config.errors import InputError
from runner.config.exit_codes import WRONG_INPUT
from runner.config.installation import ROOT
from runner.config.paths import expanded, quoted

CHECKED = "DCRUN_CHECKED"
"""The environment variable with the files of the options that are checked."""
SUITE = ROOT / "tests" / "algorithms" / "test_methods.py"
_SLOW = "markers=slow: takes longer than some seconds; left out by --quick"
_GROUP = "algorithm"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite on the methods that a command line names.

    Args:
        arguments: the command line without the program's name; by default this process's.

    Returns:
        The exit code: 0 passed, 1 a test failed or the suite was stopped, 2 wrong input.
    """
    given = _parse(arguments)
    try:
        if importlib.util.find_spec("pytest") is None:
            raise InputError("pytest: is not installed; allowed: with it, as by pip install pytest")
        options = [option for named in given.methods for option in _options(named, given.config_dir)]
        folders = dict.fromkeys(option.parents[1] for option in options)
        own_folders.add([f"{own_folders.KEY}=[{','.join(quoted(str(folder)) for folder in folders)}]"])
        own_folders.check_shadowed(folders, [(_GROUP, option.stem) for option in options])
    except InputError as error:
        print(f"dcrun-check: {error}", file=sys.stderr)
        return WRONG_INPUT
    os.environ[CHECKED] = os.pathsep.join(map(str, options))
    return _pytest(given)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="dcrun-check", description="Run the suite of all methods on methods of your own.")
    parser.add_argument(
        "methods", nargs="+", metavar="METHOD", help="a file with a method's class, or the name of its options"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="your options (default: conf/ here or further up)")
    parser.add_argument("--quick", action="store_true", help="leave out what takes longer than some seconds")
    parser.add_argument("-k", metavar="WORDS", help="only tests whose names match, as pytest's -k")
    return parser.parse_args(arguments)


def _pytest(given: argparse.Namespace) -> int:
    import pytest

    # A configuration of the user's own tests, which pytest would look for above the suite's file, is not this suite's.
    setting = ["-c", os.devnull, "--rootdir", str(ROOT), "--import-mode=importlib", "-p", "no:cacheprovider"]
    # Who starts the command has imported Hydra, which brings a plugin for pytest.
    setting += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    chosen = [*(["-m", "not slow"] if given.quick else []), *(["-k", given.k] if given.k else [])]
    # What failed and where it did so in the method: whole functions of the suite and of Hydra would bury that.
    code = pytest.main([*setting, "-q", "--tb=short", "-o", _SLOW, *chosen, str(SUITE)])
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        print(f"dcrun-check: -k {given.k}: no test has such a name; allowed: as learns or bits", file=sys.stderr)
        return WRONG_INPUT
    return int(code != pytest.ExitCode.OK)


def _options(named: str, config_dir: str | None) -> list[Path]:
    """Return the files of options that an argument means.

    Raises:
        InputError: there is none.
    """
    module = expanded(named, "METHOD").absolute() if named.endswith(".py") else None
    if module is not None and not module.is_file():
        raise InputError(f"{named}: no such file; allowed: a Python file with a method's class")
    folders = [folder for folder in _folders(module, config_dir) if (folder / _GROUP).is_dir()]
    found = [path.absolute() for folder in folders for path in sorted((folder / _GROUP).glob("*.yaml"))]
    if module is None:
        if chosen := [path for path in found if path.stem == named][:1]:
            return chosen
        names = ", ".join(sorted({path.stem for path in found}))
        raise InputError.of(_GROUP, named, "no such option", names)
    yaml_text.check_options(folders, [(_GROUP, path.stem) for path in found])
    if chosen := [path for path in found if _is_in(path, module)]:
        return chosen
    where = ", ".join(str(folder / _GROUP) for folder in folders)
    raise InputError(
        f"{named}: no option of {where} has a _target_ in it; allowed: with a file of options for its class"
    )


def _folders(module: Path | None, config_dir: str | None) -> Iterator[Path]:
    """Yield the folders of options, the nearest first."""
    if config_dir is not None:
        folder = expanded(config_dir, "--config-dir").absolute()
        if not folder.is_dir():
            raise InputError.of("--config-dir", config_dir, "no such folder", "a folder with algorithm/<name>.yaml")
        yield folder
    yield from (folder / own_folders.OWN_CONF for folder in ([Path.cwd()] if module is None else module.parents))
    yield ROOT / own_folders.OWN_CONF


def _is_in(option: Path, module: Path) -> bool:
    """Return whether the class of an option is in a file, which lies in or below the folder that holds the options'."""
    target = str(yaml_text.load(option).get("_target_", ""))
    place = option.parents[2].joinpath(*target.split(".")[:-1]).with_suffix(".py")
    return place.is_file() and place.samefile(module)


if __name__ == "__main__":
    sys.exit(main())
