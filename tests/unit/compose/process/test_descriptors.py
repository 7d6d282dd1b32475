"""The soft limit of open files: raised, bounded, told of."""

import resource
import subprocess
import sys

import pytest

from headrace.compose.process.descriptors import WANTED, wanted_limit

INFINITE = resource.RLIM_INFINITY
RAISE = """
import resource, sys
from headrace.compose.process.descriptors import raise_soft_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, min(hard, 300) if hard != -1 else 300))
raise_soft_limit(int(sys.argv[1]), print, print)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 4096, 4096),
        (1024, 1_048_576, WANTED),
        (1024, INFINITE, WANTED),
        (100_000, 200_000, 100_000),
        (INFINITE, INFINITE, INFINITE),
    ],
)
def test_as_far_as_allowed_and_needed(soft, hard, wanted):
    assert wanted_limit(soft, hard) == wanted


def raised(max_connections: int) -> list[str]:
    """What a process with a soft limit of 100 and a hard one of 300 says."""
    command = [sys.executable, "-c", RAISE, str(max_connections)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_raised_and_said():
    assert raised(150) == ["open files: limit raised from 100 to 300", "300"]


def test_too_low_for_the_connections_that_are_allowed():
    _, warning, limit = raised(151)
    assert limit == "300"
    assert "limits.max_connections is 151, but only 300 files" in warning
    assert "set limits.max_connections to 150" in warning
