"""What is missing for extension modules is named in one line, with a remedy."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from tools import c_compiler


@pytest.fixture
def compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH, with a compiler `cc` that compiles anything, and Python's headers
    are there.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CC", "cc -pthread")
    put(folder, "cc", "exit 0")
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(headers))
    return folder


def put(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_nothing_is_missing_where_an_empty_module_compiles(compilers: Path):
    assert c_compiler.missing() is None


def test_no_compiler(compilers: Path):
    (compilers / "cc").unlink()
    said = str(c_compiler.missing())
    assert "no C compiler (cc is not on PATH)" in said
    assert "apt install gcc" in said
    assert "\n" not in said


def test_the_one_that_python_was_built_with_is_asked_for_first(compilers, monkeypatch):
    monkeypatch.delenv("CC")
    monkeypatch.setattr(sysconfig, "get_config_var", {"CC": "of-this-python -Wall"}.get)
    assert "of-this-python is not on PATH" in str(c_compiler.missing())
    put(compilers, "of-this-python", "exit 0")
    assert c_compiler.missing() is None


def test_no_headers(compilers: Path):
    header = compilers.parent / "include" / "Python.h"
    header.unlink()
    said = str(c_compiler.missing())
    assert f"({header} does not exist)" in said
    assert "-dev`" in said
    assert "\n" not in said


def test_a_compiler_without_a_c_library(compilers: Path):
    put(compilers, "cc", "echo In file included from; echo 'fatal error: limits.h: None'; exit 1")
    said = str(c_compiler.missing())
    assert "fatal error: limits.h: None. Install the C library's headers" in said
    assert "\n" not in said


def test_one_that_says_nothing_is_quoted_by_its_exit_code(compilers: Path):
    put(compilers, "cc", "exit 3")
    assert "exit code 3" in str(c_compiler.missing())


def test_this_machine_without_its_compilers(path_without_compilers: str, monkeypatch):
    monkeypatch.setenv("PATH", path_without_compilers)
    monkeypatch.delenv("CC", raising=False)
    assert "there is no C compiler" in str(c_compiler.missing())


def test_this_machine_with_them():
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    said = c_compiler.missing()
    assert said is None or "headers" in said
