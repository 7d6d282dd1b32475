"""Which contenders take part, under which names."""

import pytest

from benchmarks import contenders, data_plane
from benchmarks.contenders import (
    FLOOR,
    GATEWAY,
    INTERPRETED,
    INTERPRETED_UNDER_SYSTEM_PYTHON,
    UNDER_SYSTEM_PYTHON,
)
from benchmarks.report import Results, as_table

ALL = (FLOOR, GATEWAY, UNDER_SYSTEM_PYTHON, INTERPRETED, INTERPRETED_UNDER_SYSTEM_PYTHON)


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr(data_plane, "why_not_compiled", lambda: None)
    return Results()


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (None, ALL),
        ("nginx", (FLOOR,)),
        ("nginx,headrace", ALL),
        ("headrace, interpreted", (INTERPRETED, INTERPRETED_UNDER_SYSTEM_PYTHON)),
        ("headrace, system,nginx", (FLOOR, UNDER_SYSTEM_PYTHON)),
    ],
)
def test_names_choose_by_how_they_begin(results, monkeypatch, asked, chosen):
    arguments = [] if asked is None else ["--only", asked]
    monkeypatch.setattr("sys.argv", ["data_plane", *arguments])
    options = data_plane._options()
    assert data_plane.chosen(ALL, options.only, results) == list(chosen)
    assert results.left_out == {}


def test_where_nothing_can_be_compiled_the_rows_say_why(results, monkeypatch):
    monkeypatch.setattr(data_plane, "why_not_compiled", lambda: "there is no C compiler")
    rest = [FLOOR, INTERPRETED, INTERPRETED_UNDER_SYSTEM_PYTHON]
    assert data_plane.chosen(ALL, [], results) == rest
    for each in rest:
        results.add(each.name, "event_cpu_us", 2.0)
    table = as_table(results.figures("direct"), results.left_out, floor="nginx", direct="direct")
    rows = dict(line.strip().split("  ", maxsplit=1) for line in table.splitlines()[1:])
    assert rows["headrace"] == "cannot be built: there is no C compiler"
    assert rows["headrace, system's Python"] == rows["headrace"]
    assert "2.0 (1.00×)" in rows["headrace, interpreted"]


@pytest.mark.parametrize(
    ("reason", "name"), [(None, "headrace"), ("no compiler", "headrace, interpreted")]
)
def test_a_gateway_is_called_by_the_build_that_runs(monkeypatch, tmp_path, reason, name):
    monkeypatch.setattr(contenders, "why_not_compiled", lambda: reason)
    monkeypatch.setattr(contenders, "_compiled", lambda: ("compiled headrace",))
    chosen = contenders.gateway()
    command, _ = chosen.start(["http://127.0.0.1:1"], 8080, tmp_path)
    assert (chosen.name, command[0] == "compiled headrace") == (name, reason is None)


def test_who_is_not_wanted_is_not_missed(results, monkeypatch):
    monkeypatch.setattr(data_plane, "why_not_compiled", lambda: "there is no C compiler")
    assert data_plane.chosen(ALL, ["nginx"], results) == [FLOOR]
    assert results.left_out == {}
