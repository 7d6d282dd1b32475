"""Constructors written out for the compiler make the same objects, on the same lines."""

import ast
import inspect
from pathlib import Path
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


def made_from(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": __name__}
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
        each.name: ast.unparse(each.decorator_list[0])
        for each in ast.parse(written_out(SOURCE)).body
        if isinstance(each, ast.ClassDef)
    }
    assert classes == {
        "Told": "dataclass(unsafe_hash=True, init=False)",
        "Kept": "dataclass(slots=True, init=False)",
        "Setting": "dataclass(frozen=True, slots=True)",
        "Sums": "dataclass(slots=True)",
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


def test_the_files_are_as_before_behind_it(tmp_path: Path):
    file = tmp_path / "made.py"
    file.write_text(SOURCE)
    with in_place([str(file)]):
        assert file.read_text() == written_out(SOURCE)
    assert file.read_text() == SOURCE
    with pytest.raises(ZeroDivisionError), in_place([str(file)]):
        raise ZeroDivisionError
    assert file.read_text() == SOURCE
