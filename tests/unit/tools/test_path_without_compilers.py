"""The PATH that proves that no compiler is needed."""

import shutil

import pytest

from tools.path_without_compilers import fill


def make_programs(folder, *names: str) -> None:
    folder.mkdir()
    for name in names:
        program = folder / name
        program.write_text(f"#!/bin/sh\necho {folder.name}\n")
        program.chmod(0o755)


def test_hides_compilers_under_every_name_and_nothing_else(tmp_path, monkeypatch):
    compilers = ("cc", "gcc", "g++", "gcc-12", "x86_64-linux-gnu-g++-12", "c++", "clang", "cmake")
    others = ("git", "make", "ccache-stats", "python3", "gccgo-docs")
    make_programs(tmp_path / "bin", *compilers, *others)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{tmp_path / 'missing'}")
    folder = tmp_path / "without"
    folder.mkdir()
    fill(folder)
    assert {link.name for link in folder.iterdir()} == set(others)


def test_the_first_of_two_programs_with_one_name_wins(tmp_path, monkeypatch):
    make_programs(tmp_path / "first", "git")
    make_programs(tmp_path / "second", "git")
    monkeypatch.setenv("PATH", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    folder = tmp_path / "without"
    folder.mkdir()
    fill(folder)
    assert (folder / "git").resolve() == tmp_path / "first" / "git"


@pytest.mark.parametrize("compiler", ["cc", "gcc", "g++", "cmake"])
def test_no_compiler_of_this_machine_is_found(path_without_compilers: str, compiler: str):
    assert shutil.which(compiler, path=path_without_compilers) is None
