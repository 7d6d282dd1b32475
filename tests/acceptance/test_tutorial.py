"""The tutorial's commands print what stands under them: figures change when a policy does."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "simulate.md"
PLAYED = re.compile(r"```sh\nheadrace (simulate --traffic [^`]*)```\n\n```text\n([^`]*)```")
"""A command that needs no file, and its output."""
COMMANDS = PLAYED.findall(PAGE.read_text(encoding="utf-8"))


def table(text: str) -> dict[str, dict[str, str]]:
    """Each policy's figures, by column."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line[:1] == " "]
    head, *rest = (row for row in rows if "─" not in row[0])
    return {row[0]: dict(zip(head, row, strict=True)) for row in rest}


@pytest.mark.parametrize(("command", "shown"), COMMANDS)
def test_a_command_prints_what_is_shown(command, shown):
    words = shlex.split(command.replace("\\\n", " "))
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    printed, wanted = table(done.stdout), table(shown)
    assert list(printed) == list(wanted)
    assert {
        policy: {column: printed[policy][column] for column in row}
        for policy, row in wanted.items()
    } == wanted


def test_the_page_has_commands_to_play():
    assert len(COMMANDS) >= 6
