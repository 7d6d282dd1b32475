"""Fixtures for every lane."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.real_tools import require
from tools.debian_tools import Program
from tools.path_without_compilers import fill

# Before gRPC is imported: tests start processes, and it would remark on each of them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# What a script starts in the background ignores Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
settings.register_profile(
    "untimed", settings.default, deadline=None, suppress_health_check=(HealthCheck.too_slow,)
)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def prometheus_binary() -> Program:
    """A real `prometheus`; start it with `[str(p.path), …]` and `env=p.env`."""
    return require("prometheus")


@pytest.fixture(scope="session")
def promtool_binary() -> Program:
    """A real `promtool`; start it with `[str(p.path), …]` and `env=p.env`."""
    return require("promtool")


@pytest.fixture(scope="session")
def path_without_compilers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with every program of this machine but compilers: proves that none is needed."""
    folder = tmp_path_factory.mktemp("path-without-compilers")
    fill(folder)
    return str(folder)
