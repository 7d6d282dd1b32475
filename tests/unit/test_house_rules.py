"""Sizes and names that keep the house readable, checked by machine."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
MEANINGLESS_NAMES = {"utils", "util", "common", "manager", "helper", "helpers", "base", "misc"}
MACHINE_PATH = re.compile(r"""["'\s(=]/((root|work|Users)/|home/\w+/)""")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_is_something_to_check():
    assert ROOT / "src" / "headrace" / "cli" / "flags.py" in SOURCES


def test_no_file_is_too_long():
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in SOURCES}
    assert {path: count for path, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_no_function_is_too_long():
    too_long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert too_long == {}


def test_every_module_is_named_after_its_subject():
    assert [path for path in SOURCES if path.stem in MEANINGLESS_NAMES] == []


def test_the_map_of_the_core_names_each_of_its_files():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    of_the_core = text.partition("### The core by subject")[2].partition("\n## ")[0]
    named = re.findall(r"`([a-z_]+)`", of_the_core)
    core = ROOT / "src" / "headrace" / "core"
    files = [path.stem for folder in (core, core / "scaling") for path in folder.glob("[!_]*.py")]
    assert sorted(named) == sorted(files)


def test_the_map_of_the_load_generator_names_each_of_its_folders():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    map_ = text.partition("### The load generator by subject")[2].partition("\n##")[0]
    named = re.findall(r"^\| `([a-z_]+)/` \|", map_, re.MULTILINE)
    folders = [path.parent.name for path in (ROOT / "src/headrace/bench").glob("*/__init__.py")]
    assert sorted(named) == sorted(folders)


def test_no_file_names_a_place_on_somebodys_machine():
    folders = ("src", "tools", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = [path for path in files if MACHINE_PATH.search(path.read_text())]
    assert found == []


def test_no_example_of_a_property_has_a_deadline():
    """How long one takes says how busy the machine is."""
    assert settings().deadline is None
