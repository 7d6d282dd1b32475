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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Shown:
    """A command of the page, and the table that the page shows of it."""

    command: str
    table: str

    @property
    def of_trace(self) -> bool:
        """Whether it plays the trace, which not everybody has."""
        return TRACE_NAME in self.command

    @property
    def without_sweep(self) -> str:
        """The command, with the rows that a sweep chose named as policies: the same table in a
        sixth of the time, if the sweep would choose these again.
        """
        names = re.findall(r"^ (\w\S*)", self.table.partition("─\n")[2], re.MULTILINE)
        policies = f"--policies {','.join(names)}"
        return re.sub(r"--policies \S+(.*?) --sweep", rf"{policies}\1", self.command)


def shown() -> list[Shown]:
    """Every command of the page that prints a table, in order."""
    found = _SHOWN.finditer(PAGE.read_text("utf-8"))
    return [Shown(each[2], _from_heads_on(each[3])) for each in found]


def page(trace: Path | None) -> str:
    """The page with the tables of this code. Without the trace those of the trace stay."""

    def again(found: re.Match[str]) -> str:
        before, command, text, after = found.groups()
        if trace is None and TRACE_NAME in command:
            return found.group()
        said = text.removesuffix(_from_heads_on(text))  # no figures: they stay as they are
        return f"{before}{said}{printed_table(command, trace)}{after}"

    return _SHOWN.sub(again, PAGE.read_text("utf-8"))


def _from_heads_on(text: str) -> str:
    return text[text.index(" policy ") :]


def printed_table(command: str, trace: Path | None) -> str:
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
