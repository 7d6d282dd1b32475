"""What the compiled wheel is made of, as far as it can be seen without a compiler."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import headrace
from tools import compiled

SOURCES = compiled.ROOT / "src" / "headrace"
NAMES = {f"headrace.{name.replace('/', '.')}" for name in compiled.MODULES}


@pytest.mark.parametrize("name", compiled.MODULES)
def test_no_class_has_a_field_of_a_compiled_class_that_may_not_be_there_yet(name: str):
    """mypyc looks each such class up when the module is imported, and would find a null pointer."""
    tree = ast.parse((SOURCES / f"{name}.py").read_text())
    absent = set(_for_type_checkers(tree))
    fields = [
        f"{cls.name}.{ast.unparse(each.target)}"
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
        for each in cls.body
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.annotation, ast.Name)
        and each.annotation.id in absent
    ]
    assert fields == []


def _for_type_checkers(tree: ast.Module) -> Iterator[str]:
    """Names of compiled modules that are imported for type checkers alone."""
    for guard in tree.body:
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING":
            for each in guard.body:
                if isinstance(each, ast.ImportFrom) and each.module in NAMES:
                    yield from (alias.asname or alias.name for alias in each.names)


def test_the_copy_says_that_it_is_compiled(tmp_path: Path):
    project = compiled.lay_out(tmp_path / "project")
    marked = f"{headrace.__version__.partition('+')[0]}+compiled"
    assert f'__version__ = "{marked}"' in (project / "headrace" / "__init__.py").read_text()
    described = tomllib.loads((project / "pyproject.toml").read_text())
    assert described["project"]["version"] == marked
    asked = tomllib.loads((compiled.ROOT / "pyproject.toml").read_text())["project"]
    assert described["project"]["dependencies"] == asked["dependencies"]


def test_the_sources_stay_as_they_are(tmp_path: Path):
    project = compiled.lay_out(tmp_path / "project")
    sources = compiled.ROOT / "src" / "headrace"
    changed = [
        str(path.relative_to(sources))
        for path in sorted(sources.rglob("*.py"))
        if path.read_bytes() != (project / "headrace" / path.relative_to(sources)).read_bytes()
    ]
    assert changed == ["__init__.py"]
