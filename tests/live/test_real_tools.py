"""The tools from Debian's packages run."""

import subprocess

import pytest

from tools.debian_tools import Program

pytestmark = pytest.mark.prometheus


@pytest.mark.parametrize("tool", ["prometheus_binary", "promtool_binary"])
def test_it_says_its_version(tool: str, request: pytest.FixtureRequest):
    program: Program = request.getfixturevalue(tool)
    done = subprocess.run(
        [str(program.path), "--version"],
        env=program.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "version 2." in done.stdout + done.stderr or "version 3." in done.stdout + done.stderr
