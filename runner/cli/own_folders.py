"""Where a command line finds the user's own options and modules.

Options come from `conf/` in the working directory, from `--config-dir` and from `hydra.searchpath`. Modules come from
the working directory and from the folders that hold those folders of options. A run that goes on or is replayed also
finds what the recorded run found, so that it can be continued from another working directory.

All folders end in one `hydra.searchpath` of absolute paths: that goes to the jobs of a sweep and into the run folder.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from runner.config import name_clash, own_code, schema, yaml_text
from runner.config.errors import InputError
from runner.config.installation import ROOT
from runner.config.override_errors import parse
from runner.config.paths import expanded, quoted
from runner.run_folder import resume

KEY = "hydra.searchpath"
OWN_CONF = "conf"
"""Name of the folder of options that needs no flag, if it lies in the working directory."""
_FILE = "file://"


def add(overrides: Sequence[str]) -> list[str]:
    """Make the user's modules importable, and return the overrides with one search path for their options.

    Args:
        overrides: the command line's arguments, the folder of `--config-dir` among them as a search path.
    """
    rest, places = [], list[str]()
    for override in overrides:
        value = parse([override])[0].value() if override.startswith(f"{KEY}=") else None
        # Anything else than a list is refused when the line is composed.
        if isinstance(value, list):
            places += [_absolute(str(place)) for place in value]
        else:
            rest.append(override)
    recorded, folders = resume.recorded_places(rest)
    places += recorded
    if _is_options(own := Path.cwd() / OWN_CONF):
        places.append(f"{_FILE}{own}")
    places = list(dict.fromkeys(places))
    own_code.add([Path.cwd(), *(folder.parent for folder in option_folders(places)), *folders])
    if not places:
        return rest
    return [*rest, f"{KEY}=[{','.join(map(quoted, places))}]"]


def option_folders(places: Iterable[str]) -> list[Path]:
    """Return the entries of a search path that are folders; others, as `pkg://`, are packages."""
    return [Path(place.removeprefix(_FILE)) for place in places if urlsplit(place).scheme in ("", "file")]


def options(places: Iterable[str], group: str) -> list[str]:
    """Return the names of the user's options of a group; those of `pkg://` entries are not looked for."""
    groups = [folder / group for folder in option_folders(places)]
    found = {path.relative_to(top).with_suffix("") for top in groups for path in top.rglob("*.yaml")}
    return sorted(map(str, found))


def check_shadowed(folders: Iterable[Path], chosen: Iterable[tuple[str, str]]) -> None:
    """Refuse an option or a class that both the project and the user have: the project's would be taken.

    An option that is a copy of the project's is no mistake.

    Args:
        folders: the user's folders of options.
        chosen: (group, option) as on the command line.

    Raises:
        InputError: naming both files.
    """
    for group, option in chosen:
        ours = ROOT / OWN_CONF / group / f"{option}.yaml"
        for theirs in (folder / group / f"{option}.yaml" for folder in folders):
            if ours.is_file() and theirs.is_file() and ours.read_bytes() != theirs.read_bytes():
                wrong = f"dcrun has an option of this name ({ours}), and yours ({theirs}) would not be used"
                raise InputError.of(group, option, wrong, "another name for yours")
            if theirs.is_file():
                name_clash.check_both(yaml_text.load(theirs), theirs.parent.parent.parent)


def _absolute(place: str) -> str:
    """Return an entry of a search path that means the same in any working directory; one that is missing as it is."""
    [folder] = option_folders([place]) or [None]
    if folder is None:
        return place
    folder = expanded(str(folder), KEY)
    return f"{_FILE}{folder.resolve()}" if folder.is_dir() else place


def _is_options(folder: Path) -> bool:
    """Return whether a folder holds options of a group, and is not the project's own."""
    if not folder.is_dir() or folder.resolve() == ROOT / OWN_CONF:
        return False
    return any((folder / group).is_dir() for group in (*schema.GROUPS, "experiment"))
