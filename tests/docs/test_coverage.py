"""Every public name has a docstring, every module a page, and every configuration key a type and a meaning."""

import ast
import dataclasses
from collections.abc import Iterator

from docs.generate import configuration, modules
from runner.config import schema

MODULES = modules.modules()
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(node: Documented, inside: str) -> Iterator[tuple[str, Documented]]:
    """The module, its public classes and functions, and their public methods."""
    yield inside, node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.FunctionDef) or not isinstance(
            child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            continue
        if not child.name.startswith("_"):
            yield from public(child, f"{inside}.{child.name}")


def undocumented(source: str, name: str) -> list[str]:
    return [where for where, node in public(ast.parse(source), name) if not ast.get_docstring(node)]


def test_every_public_name_has_a_docstring():
    missing = [found for name, path in MODULES.items() for found in undocumented(path.read_text("utf-8"), name)]
    assert missing == []


def test_a_name_without_a_docstring_is_found():
    source = '"""M."""\nclass A:\n    """A."""\n    def f(self): ...\n    def _g(self): ...\ndef h(): ...\n'
    assert undocumented(source, "m") == ["m.A.f", "m.h"]


def test_every_module_is_on_the_page_of_its_room():
    pages = modules.pages()
    for name in MODULES:
        assert f"\n::: {name}\n" in pages[modules.page_of(name)]


def test_the_menu_has_every_page_that_is_made():
    menu = (modules.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for folder, names in (("code", modules.pages()), ("configuration", configuration.pages())):
        for name in names:
            assert f"reference/{folder}/{name}.md" in menu


ROWS = list(configuration.all_rows())


def test_every_key_has_a_meaning():
    missing = [f"{option}: {row.name}" for option, row in ROWS if not row.meaning]
    assert missing == [], "conf/: no comment says what these keys mean"


def test_every_key_has_a_type_in_words():
    words = {"number", "integer", "text", "list", "mapping", "null", "true", "false", '"auto"', "text (a folder), true"}
    unclear = {row.name: row.kind for _, row in ROWS if not set(row.kind.split(" or ")) <= words}
    assert unclear == {}


def test_every_key_of_the_schema_is_in_the_reference():
    keys = configuration.schema_types(schema.Config)
    keys |= configuration.schema_types(schema.RunConfig, "run.")
    assert set(keys) - {row.name for _, row in ROWS} == {"algorithm", "model", "dataset"}


def test_every_option_is_a_section():
    pages = configuration.pages()
    for group in (*configuration.SECTIONS, *configuration.TARGETS):
        for path in configuration.options(group):
            assert f"\n## {group}={path.stem}\n" in pages[group]


def test_types_are_said_in_words():
    assert configuration.plain_type("float | int | None") == "number or null"
    assert configuration.plain_type("collections.abc.Sequence[str] | None") == "list or null"
    types = configuration.schema_types(schema.RunConfig, "run.")
    assert types["run.compute_processes"] == 'integer or "auto"'
    assert {"run." + field.name for field in dataclasses.fields(schema.RunConfig)} == set(types)
