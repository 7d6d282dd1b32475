"""The compiled wheel is built, says what it is, and does what the sources do."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.real_tools import unavailable
from tools import compiled

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
TESTS = ("tests/unit/core", "tests/unit/config", "tests/unit/gateway", "tests/gateway")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """What a process is started with to run the compiled build."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        unavailable("there is no C compiler")
    compiled.main()
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


def test_it_passes_the_tests_of_what_it_is_made_of(environment: dict[str, str]):
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *WHAT, *TESTS)
    run = subprocess.run(command, env=environment, cwd=compiled.ROOT, check=False)
    assert run.returncode == 0
