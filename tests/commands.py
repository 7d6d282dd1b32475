"""Commands of the command line, run in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.cli import main

Run = Callable[..., tuple[Any, str, str]]
"""Runs a command; its exit code, stdout and stderr."""


def runner(capsys: pytest.CaptureFixture[str], *first: str) -> Run:
    """Runs a command whose first words are these."""

    def command(*arguments: object) -> tuple[Any, str, str]:
        try:
            code = main([*first, *map(str, arguments)])
        except SystemExit as ended:  # argparse
            code = ended.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command
