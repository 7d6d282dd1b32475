"""Constructors written out for the compiler make the same objects, on the same lines."""

import ast
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from headrace.core import events
from tools import compiled
from tools.written_out import in_place, written_out

SOURCE = '''
from dataclasses import dataclass, field
from headrace.core.message import message


@message
class Told:
    """Something.

    It happened.
    """

    who: str
    when_s: float = 1.5
    tags: tuple[str, ...] = ()

    @property
    def shouted(self) -> str:
        return self.who.upper()


@dataclass(slots=True)
class Kept:
    """What changes."""

    told: Told


@dataclass(frozen=True, slots=True)
class Setting:
    """One of a configuration."""

    size: int = 1


@dataclass(slots=True)
class Sums:
    """Has something of its own in each."""

    by_name: dict[str, int] = field(default_factory=dict)


def fail():
    raise AssertionError
'''


def unread(**_: object) -> Callable[[type], type]:
    """Stands for `mypyc_attr`, which the compiler reads and leaves out."""
    return lambda made: made


def made_from(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__, "mypyc_attr": unread}
    exec(compile(source, "made.py", "exec", dont_inherit=True), names)
    return names


def test_a_record_is_made_compared_and_shown_as_before():
    before, after = made_from(SOURCE), made_from(written_out(SOURCE))
    for made in (before["Told"], after["Told"]):
        told = made("ann", tags=("x",))
        assert told == made("ann", 1.5, ("x",))
        assert hash(told) == hash(made("ann", 1.5, ("x",)))
        assert told.shouted == "ANN"
        assert repr(told) == "Told(who='ann', when_s=1.5, tags=('x',))"
    assert after["Kept"](told="x").told == "x"


def test_it_is_one_that_the_compiler_takes():
    classes = {
        each.name: [ast.unparse(decorator) for decorator in each.decorator_list]
        for each in ast.parse(written_out(SOURCE)).body
        if isinstance(each, ast.ClassDef)
    }
    assert classes == {
        "Told": ["mypyc_attr(acyclic=True)", "dataclass(unsafe_hash=True, init=False)"],
        "Kept": ["dataclass(slots=True, init=False)"],
        "Setting": ["dataclass(frozen=True, slots=True)"],
        "Sums": ["dataclass(slots=True)"],
    }


def test_every_line_keeps_its_number():
    before, after = made_from(SOURCE)["fail"], made_from(written_out(SOURCE))["fail"]
    assert before.__code__.co_firstlineno == after.__code__.co_firstlineno


@pytest.mark.parametrize("name", compiled.MODULES)
def test_each_compiled_module_has_as_many_lines_as_before(name: str):
    source = (compiled.ROOT / "src" / "headrace" / f"{name}.py").read_text()
    after = written_out(source)
    assert len(after.splitlines()) == len(source.splitlines())
    assert "\n@message\n" not in after


def test_every_event_has_the_signature_it_had():
    assert events.__file__ is not None
    source = (compiled.ROOT / "src" / "headrace" / "core" / "events.py").read_text()
    after = made_from(written_out(source))
    for name in ("Arrived", "Ended", "ReplicaChanged", "ConfigChanged", "Dispatch", "Reject"):
        was = inspect.signature(getattr(events, name)).parameters.values()
        now = inspect.signature(after[name]).parameters.values()
        assert [(each.name, each.default) for each in now] == [
            (each.name, each.default) for each in was
        ]


@pytest.mark.parametrize("name", compiled.MODULES)
def test_records_of_each_compiled_module_are_made_and_compared_as_before(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """Of a parent's fields, of keywords and of what belongs to the class the text knows nothing."""
    source = (compiled.ROOT / "src" / "headrace" / f"{name}.py").read_text()
    before, after = (
        records_of(f"headrace.{name.replace('/', '.')}_{kind}", text, monkeypatch)
        for kind, text in (("before", source), ("after", written_out(source)))
    )
    assert after == before


def records_of(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """How each record of a module is made, and what tells two of them apart."""
    module = ModuleType(name)
    vars(module)["mypyc_attr"] = unread
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, name, "exec", dont_inherit=True), vars(module))
    return {
        each.__name__: (
            [
                (taken.name, taken.kind, shown(taken.default))
                for taken in inspect.signature(each).parameters.values()
            ],
            [(field.name, field.compare, field.repr) for field in fields(each)],
        )
        for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == name and is_dataclass(each)
    }


def shown(default: object) -> str:
    """A default as text, in which a function made anew is the one it was."""
    return default.__qualname__ if isinstance(default, FunctionType) else repr(default)


def test_the_files_are_as_before_behind_it(tmp_path: Path):
    file = tmp_path / "made.py"
    file.write_text(SOURCE)
    with in_place([str(file)]):
        assert file.read_text() == written_out(SOURCE)
    assert file.read_text() == SOURCE
    with pytest.raises(ZeroDivisionError), in_place([str(file)]):
        raise ZeroDivisionError
    assert file.read_text() == SOURCE
