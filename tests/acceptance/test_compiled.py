"""The compiled wheel is built, says what it is, and does what the sources do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.property.test_byte_path_shortcuts import CONVERSATIONS
from tests.real_tools import unavailable
from tools import bootstrap, c_compiler, compiled

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

SIMULATION = (
    "simulate",
    "--traffic",
    "multi_turn",
    "--duration",
    "60",
    "--policies",
    "seconds,power_of_two",
    "--json",
)
WHAT = ("-m", "not interpreted")
TESTS = (
    "tests/property",
    "tests/conformance",
    "tests/unit/engines",
    "tests/unit/core",
    "tests/unit/config",
    "tests/unit/gateway",
    "tests/gateway",
)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """What a process is started with to run the compiled build."""
    if (missing := c_compiler.missing()) is not None:
        unavailable(missing)
    compiled.build()
    return {**os.environ, "PYTHONPATH": str(compiled.SITE)}


def headrace(*arguments: str, env: dict[str, str] | None = None) -> str:
    command = (sys.executable, "-m", "headrace", *arguments)
    return subprocess.run(command, env=env, check=True, text=True, stdout=subprocess.PIPE).stdout


def test_its_version_says_so(environment: dict[str, str]):
    assert headrace("--version", env=environment) == f"{headrace('--version').strip()}+compiled\n"


def test_every_module_named_is_compiled(environment: dict[str, str]):
    names = [f"headrace.{name.replace('/', '.')}" for name in compiled.MODULES]
    code = f"import importlib; [print(importlib.import_module(n).__file__) for n in {names!r}]"
    command = (sys.executable, "-c", code)
    files = subprocess.check_output(command, env=environment, text=True).split()
    assert [file for file in files if not file.endswith(".so")] == []


def test_it_decides_the_same(environment: dict[str, str]):
    assert headrace(*SIMULATION, env=environment) == headrace(*SIMULATION)


@pytest.mark.parametrize("seed", range(3))
def test_its_shortcuts_change_nothing(environment: dict[str, str], seed: int):
    """Whoever goes the long way, interpreted, sends and counts the same."""
    code = (
        "import sys; from tests.property import test_byte_path_shortcuts as test; "
        f"test.tell({seed}, shortcuts=sys.argv[1] == 'with')"
    )
    *ours, passed = told_by(code, "with", env=environment)
    *theirs, passed_theirs = told_by(code, "without", env=None)
    assert ours == theirs
    assert len(ours) == CONVERSATIONS // 3
    assert int(passed) > CONVERSATIONS // 3
    assert int(passed_theirs) == 0


def told_by(code: str, *arguments: str, env: dict[str, str] | None) -> list[str]:
    command = (sys.executable, "-c", code, *arguments)
    return subprocess.check_output(command, env=env, cwd=compiled.ROOT, text=True).split()


def test_it_passes_the_tests_of_what_it_is_made_of(environment: dict[str, str]):
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *WHAT, *TESTS)
    run = subprocess.run(command, env=environment, cwd=compiled.ROOT, check=False)
    assert run.returncode == 0


# ---------------------------------------------------------------- the environment


@pytest.fixture(scope="module")
def checkout(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A checkout in which `make compiled` has been run: it finds the wheel of `environment`."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("src", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(compiled.ROOT / name, folder / name, ignore=ignored)
    for name in ("Makefile", "pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        shutil.copy(compiled.ROOT / name, folder)
    wheel = compiled.build()
    environment_of_it = folder / compiled.VENV.name
    bootstrap.install_wheel(bootstrap.find_uv(), wheel, environment_of_it)
    yield folder
    shutil.rmtree(folder)


def in_checkout(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (checkout / compiled.VENV.name / "bin" / "headrace", *arguments)
    return subprocess.run(command, check=True, text=True, capture_output=True)


def test_the_environment_runs_the_compiled_build_with_all_extras(checkout: Path):
    assert in_checkout(checkout, "--version").stdout.endswith("+compiled\n")
    python = checkout / compiled.VENV.name / "bin" / "python"
    code = (
        "import grpc, opentelemetry.sdk, tokenizers, xllamacpp, zmq; "
        "from headrace.edges.build import is_compiled; print(is_compiled())"
    )
    assert subprocess.check_output((python, "-c", code), text=True) == "True\n"


def test_an_edit_is_told_of_until_it_is_taken_back(checkout: Path):
    edited = checkout / "src" / "headrace" / "core" / "dispatcher.py"
    before = edited.read_text()
    assert in_checkout(checkout, *SIMULATION).stderr.count("has changed") == 0
    edited.write_text(f"{before}\n# edited\n")
    try:
        run = in_checkout(checkout, *SIMULATION)
    finally:
        edited.write_text(before)
    assert run.stderr.startswith("headrace: warning: ")
    assert "`make compiled` builds it again" in run.stderr
    assert in_checkout(checkout, *SIMULATION).stderr.count("has changed") == 0


def test_the_environment_for_tests_leaves_it_alone(checkout: Path):
    folder = checkout / compiled.VENV.name
    before = sorted(path for path in folder.rglob("*") if path.suffix != ".pyc")
    subprocess.run(("make", "env"), cwd=checkout, check=True, capture_output=True)
    assert sorted(path for path in folder.rglob("*") if path.suffix != ".pyc") == before
    version = subprocess.check_output((checkout / ".venv/bin/headrace", "--version"), text=True)
    assert "compiled" not in version
    assert "compiled" in in_checkout(checkout, "--version").stdout


def test_without_a_compiler_make_says_so_and_changes_nothing(
    checkout: Path, path_without_compilers: str
):
    env = {**os.environ, "PATH": path_without_compilers}
    env.pop("CC", None)
    command = ("make", f"PYTHON={sys.executable}", "compiled")
    run = subprocess.run(
        command, cwd=checkout, env=env, check=False, text=True, capture_output=True
    )
    assert run.returncode == 2
    said = [line for line in run.stderr.splitlines() if line.startswith("headrace: ")]
    assert len(said) == 1
    assert "there is no C compiler" in said[0]
    assert in_checkout(checkout, "--version").stdout.endswith("+compiled\n")
