"""What a test does when a real program it is about is not there."""

import os
from typing import NoReturn

import pytest

from tools.debian_tools import Program, ToolUnavailableError, find


def unavailable(reason: str) -> NoReturn:
    """Skip on a developer's machine; fail in CI, where a skipped real tool would hide a gap."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def require(binary: str) -> Program:
    """A real program and the environment to start it with; see `unavailable` where it is not."""
    try:
        return find(binary)
    except ToolUnavailableError as error:
        unavailable(str(error))
