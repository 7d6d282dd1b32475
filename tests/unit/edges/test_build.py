"""A compiled build tells whether the sources beside it are still those that it was made from."""

import sys
from pathlib import Path

import pytest

import headrace
from headrace.edges import build
from tests.commands import runner
from tools import compiled


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources beside an environment that is said to run what was compiled from them."""
    package = tmp_path / "src" / "headrace"
    (package / "core").mkdir(parents=True)
    (package / "__init__.py").write_text("one")
    (package / "core" / "model.py").write_text("two")
    (package / "config.schema.json").write_text("{}")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv-compiled"))
    monkeypatch.setattr(headrace, "compiled_from", build.digest_of(package))
    return package


def test_the_same_sources_are_not_spoken_of(sources: Path):
    assert build.changed_sources() is None


@pytest.mark.parametrize("name", ["core/model.py", "config.schema.json", "core/new.py"])
def test_an_edit_is_seen(sources: Path, name: str):
    (sources / name).write_text("changed")
    assert build.changed_sources() == sources


def test_so_is_a_file_that_is_gone_or_has_another_name(sources: Path):
    model = sources / "core" / "model.py"
    model.rename(model.with_name("models.py"))
    assert build.changed_sources() == sources
    (sources / "core" / "models.py").unlink()
    assert build.changed_sources() == sources


def test_text_that_moved_from_one_file_to_the_next_is_seen(sources: Path):
    (sources / "core" / "a.py").write_text("ab")
    (sources / "core" / "b.py").write_text("c")
    before = build.digest_of(sources)
    (sources / "core" / "a.py").write_text("a")
    (sources / "core" / "b.py").write_text("bc")
    assert build.digest_of(sources) != before


def test_what_no_run_reads_is_not_looked_at(sources: Path):
    bytecode = sources / "__pycache__"
    bytecode.mkdir()
    (bytecode / "model.cpython-311.pyc").write_text("x")
    (sources / "core" / ".model.py.swp").write_text("x")
    assert build.changed_sources() is None


def test_the_lock_of_an_editor_is_no_source(sources: Path):
    (sources / "core" / ".#model.py").symlink_to("somebody@somewhere.1234")
    assert build.changed_sources() is None


def test_sources_that_cannot_be_read_end_no_command(sources: Path, monkeypatch):
    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert build.changed_sources() is None


def test_without_sources_beside_it_there_is_nothing_to_compare(sources: Path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", "/usr/local")
    assert build.changed_sources() is None


def test_the_package_itself_is_never_outdated(sources: Path, monkeypatch):
    monkeypatch.setattr(headrace, "compiled_from", None)
    (sources / "__init__.py").write_text("changed")
    assert build.changed_sources() is None


def test_each_command_says_so_first_and_runs(sources: Path, tmp_path: Path, capsys):
    run = runner(capsys, "keys", "new", "me", "--file")
    code, _, errors = run(tmp_path / "keys-1")
    assert (code, errors.count("warning")) == (0, 0)
    (sources / "__init__.py").write_text("changed")
    code, _, errors = run(tmp_path / "keys-2")
    assert code == 0
    assert errors.startswith(f"headrace: warning: {sources} has changed since")
    assert "`make compiled` builds it again\n" in errors


def test_the_build_digests_what_a_run_compares(tmp_path: Path):
    project = compiled.lay_out(tmp_path / "project")
    carried = build.digest_of(compiled.ROOT / "src" / "headrace")
    said = (project / "headrace" / "__init__.py").read_text()
    assert f'compiled_from: str | None = "{carried}"\n' in said


def test_whether_it_is_compiled_is_told_by_what_is_loaded(monkeypatch: pytest.MonkeyPatch):
    class Found:
        origin = "/somewhere/dispatcher.cpython-311-x86_64-linux-gnu.so"

    monkeypatch.setattr(build, "find_spec", lambda _: Found)
    assert build.is_compiled()
    Found.origin = "/somewhere/dispatcher.py"
    assert not build.is_compiled()
    monkeypatch.setattr(build, "find_spec", lambda _: None)
    assert not build.is_compiled()
