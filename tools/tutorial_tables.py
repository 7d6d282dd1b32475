"""Plays the commands of docs/tutorial/simulate.md again and writes the tables that they print:
`python -m tools.tutorial_tables [TRACE]`, TRACE being Mooncake's conversation trace.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial" / "simulate.md"
TRACE_NAME = "conversation_trace.jsonl"
COLUMNS = 84
"""Of the terminal whose tables the page shows."""
_SHOWN = re.compile(r"(```sh\nheadrace (simulate [^`]+)```\n\n```text\n)([^`]*)(```)")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def page(trace: Path | None) -> str:
    """The page with the tables of this code. Without the trace those of the trace stay."""

    def again(found: re.Match[str]) -> str:
        before, command, text, after = found.groups()
        if trace is None and TRACE_NAME in command:
            return found.group()
        said = text.partition(" policy ")[0]  # notes and what stands above are no figures
        return f"{before}{said}{_table(command, trace)}{after}"

    return _SHOWN.sub(again, PAGE.read_text("utf-8"))


def _table(command: str, trace: Path | None) -> str:
    """The table that a command prints on a terminal, from its heads on."""
    with tempfile.TemporaryDirectory() as folder:
        if trace is not None:
            (Path(folder) / TRACE_NAME).symlink_to(trace.resolve())
        arguments = shlex.split(command.replace("\\\n", ""))
        printed = _on_a_terminal([sys.executable, "-m", "headrace", *arguments], folder)
    lines = [line.rstrip() for line in _ESCAPES.sub("", printed).splitlines()]
    heads = next(at for at, line in enumerate(lines) if line.startswith(" policy "))
    return "\n".join(line for line in lines[heads:] if line) + "\n"


def _on_a_terminal(command: list[str], folder: str) -> str:
    """What a command writes to a terminal of `COLUMNS`; what it tells besides is left out."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, pack("HHHH", 40, COLUMNS, 0, 0))
    plain = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(
        command, cwd=folder, env=plain, stdout=theirs, stderr=subprocess.DEVNULL
    ) as played:
        os.close(theirs)
        printed = bytearray()
        try:
            while piece := os.read(ours, 65_536):
                printed += piece
        except OSError:  # Linux says so that the other end is closed
            pass
        finally:
            os.close(ours)
    if played.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with exit code {played.returncode}")
    return printed.decode()


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1]) if sys.argv[1:] else None), encoding="utf-8")
