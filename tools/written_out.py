"""Records with their constructors written out, as the compiler needs them.

A dataclass is given its `__init__` when its module is loaded. The compiler does not see it: it is
interpreted, and so is whatever calls it. A class that `message` decorates is not compiled at all.
In the copy that is compiled both get their constructor as text; they stay dataclasses, which are
compared, shown and looked into as before. Frozen ones, mostly settings, and those with a field that
is made anew for each object stay as they are.
"""

from __future__ import annotations

import ast

_MESSAGE = "message"
_IMPORT = "from headrace.core.message import message"


def written_out(source: str) -> str:
    """The same module with constructors written out."""
    lines = source.splitlines()
    for each in reversed(ast.parse(source).body):
        if isinstance(each, ast.ClassDef) and len(each.decorator_list) == 1:
            _write_out(each, lines)
    return "\n".join(lines).replace(_IMPORT, "from dataclasses import dataclass") + "\n"


def _write_out(made: ast.ClassDef, lines: list[str]) -> None:
    """Change the lines of one class, unless it is to stay as it is."""
    (decorator,) = made.decorator_list
    if isinstance(decorator, ast.Name) and decorator.id == _MESSAGE:
        options = ["unsafe_hash=True"]
    elif isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass":
        options = [ast.unparse(each) for each in decorator.keywords]
    else:
        return
    fields = [each for each in made.body if isinstance(each, ast.AnnAssign)]
    is_one_by_one = any(_is_call_of_field(each.value) for each in fields)
    if "frozen=True" in options or is_one_by_one or _has_constructor(made):
        return
    end = made.end_lineno
    assert end is not None
    lines[end:end] = ["", *_constructor(fields)] if fields else []
    lines[decorator.lineno - 1] = f"@dataclass({', '.join((*options, 'init=False'))})"


def _is_call_of_field(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "field"


def _has_constructor(made: ast.ClassDef) -> bool:
    return any(isinstance(each, ast.FunctionDef) and each.name == "__init__" for each in made.body)


def _constructor(fields: list[ast.AnnAssign]) -> list[str]:
    """Lines of the constructor that takes these fields in this order."""
    taken: list[str] = []
    for each in fields:
        default = "" if each.value is None else f" = {ast.unparse(each.value)}"
        taken.append(f"{ast.unparse(each.target)}: {ast.unparse(each.annotation)}{default}")
    names = [ast.unparse(each.target) for each in fields]
    return [
        f"    def __init__(self, {', '.join(taken)}) -> None:",
        *(f"        self.{name} = {name}" for name in names),
    ]
