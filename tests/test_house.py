"""The structure that `docs/architecture.md` draws: rooms on floors, arrows that point down, no circles, no long files.

Imports are read from the source (`ast`), those inside functions and under TYPE_CHECKING too: an import that is moved
there so that two files may still need each other is an arrow like any other.
"""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    ("cli",),
    ("report",),
    ("sweeps",),
    ("train",),
    ("simulated", "processes"),
    ("loop",),
    ("gradients",),
    ("run_folder",),
    ("config",),
)
"""Rooms of `runner/`, from the top down; two on one floor do not know each other."""
PROTOCOLS = {
    "algorithms.base",
    "algorithms.checks",
    "algorithms.oracle",
    "algorithms.partition",
    "algorithms.pipeline",
    "algorithms.shared_memory",
    "data",
    "models.ordinary",
}
"""What `runner/` may import of the packages that it otherwise reaches through `_target_`."""
PACKAGES = ("algorithms", "models", "data", "runner")
LONGEST_FILE = 400
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@functools.cache
def sources() -> dict[str, Path]:
    """Every module of the project's packages, by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@functools.cache
def imports(name: str) -> tuple[tuple[int, str], ...]:
    """Line and module of each import of the project's own by a module."""
    found = []
    for node in ast.walk(ast.parse(sources()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((node.lineno, inner if inner in sources() else node.module))
    return tuple((line, target) for line, target in found if target.split(".")[0] in PACKAGES)


def arrows() -> Iterator[tuple[str, int, str]]:
    """Importing module, line, imported module."""
    for name in sources():
        for line, target in imports(name):
            yield name, line, target


def room(name: str) -> str | None:
    """The room of `runner/` that a module lies in; None for `runner` itself and for other packages."""
    parts = name.split(".")
    return parts[1] if parts[0] == "runner" and len(parts) > 1 else None


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that need each other, after Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_every_file_has_a_room():
    homeless = [name for name in sources() if room(name) is not None and room(name) not in FLOOR_OF]
    assert not homeless, f"no room of the house: {homeless}"


def test_arrows_point_down():
    wrong = []
    for name, line, target in arrows():
        here, there = room(name), room(target)
        if here is None or there is None or here == there:
            continue
        if FLOOR_OF[here] >= FLOOR_OF[there]:
            wrong.append(f"{sources()[name].relative_to(ROOT)}:{line} imports {target}")
    assert not wrong, "\n".join(["imports that do not point down:", *wrong])


def test_page_has_the_arrows():
    drawn: dict[str, set[str]] = {name: set() for name in FLOOR_OF}
    for name, _, target in arrows():
        here, there = room(name), room(target)
        if here in drawn and there in drawn and here != there:
            drawn[here].add(there)
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (.+) \|$", text, re.MULTILINE)
    written = {name: set(re.findall(r"\w+", told)) for name, told in rows if name in FLOOR_OF}
    assert written == drawn


def test_page_names_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{'|'.join(FLOOR_OF)})\.\w+)", text))
    assert len(named) > 20
    assert not [name for name in named if f"runner.{name}" not in sources()]


def test_no_import_circle():
    graph: dict[str, set[str]] = {name: set() for name in sources()}
    for name, _, target in arrows():
        if target in graph:
            graph[name].add(target)
    # A package's __init__ that is imported on the way to one of its modules is no arrow of the importer's choice.
    assert not circles(graph)


def test_packages_know_only_themselves():
    wrong = []
    for name, line, target in arrows():
        here, there = name.split(".")[0], target.split(".")[0]
        if here != there and not (here == "runner" and target in PROTOCOLS):
            wrong.append(f"{sources()[name].relative_to(ROOT)}:{line} imports {target}")
    assert not wrong, "\n".join(["imports that should go through `_target_`, or not be:", *wrong])


@pytest.mark.parametrize("folder", [*PACKAGES, "tests", "benchmarks"])
def test_no_file_is_long(folder: str):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    long = [f"{path.relative_to(ROOT)}: {lines} lines" for path, lines in lengths.items() if lines > LONGEST_FILE]
    assert not long, "\n".join([f"files over {LONGEST_FILE} lines; which second thing moved in?", *long])


def spoken(path: Path) -> Iterator[tuple[int, str]]:
    """Identifiers and strings of a file, docstrings apart: their examples may name what a user types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr


def test_runner_names_no_algorithm():
    names = {path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml")}
    targets = [path.read_text(encoding="utf-8") for path in (ROOT / "conf" / "algorithm").glob("*.yaml")]
    classes = {found for text in targets for found in re.findall(r"_target_: algorithms[\w.]*\.(\w+)", text)}
    assert "asgd" in names
    assert "ASGD" in classes
    word = re.compile(rf"\b({'|'.join(sorted(names | classes))})\b")
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]!r}"
        for name, path in sources().items()
        if name.startswith("runner")
        for line, text in spoken(path)
        if word.search(text)
    ]
    assert not wrong, "\n".join(["names of algorithms in runner/:", *wrong])


def test_rooms_say_what_lives_there():
    for name in FLOOR_OF:
        doc = ast.get_docstring(ast.parse((ROOT / "runner" / name / "__init__.py").read_text(encoding="utf-8")))
        assert doc and len(doc) > 60, f"runner/{name}/__init__.py does not say what lives there and what does not"
