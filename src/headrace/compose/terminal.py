"""What a person sees: status on stderr, results on stdout; plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

_PIPE_COLUMNS = 200
"""Width of tables where no terminal sets one."""


class Terminal:
    """The two streams of a command."""

    def __init__(self) -> None:
        # No guessing at what numbers and URLs mean, no wrapping inside a URL or a curl line.
        self._out = Console(highlight=False, soft_wrap=True)
        if not self._out.is_terminal:
            self._out.width = _PIPE_COLUMNS
        self._status = Console(stderr=True, highlight=False, soft_wrap=True)

    def status(self, line: str) -> None:
        """One line about what happens now."""
        self._status.print(line, markup=False)

    def problem(self, line: str) -> None:
        """One line about what went wrong."""
        self._status.print(f"headrace: {line}", markup=False, style="bold red")

    def result(self, content: RenderableType = "", *, end: str = "\n") -> None:
        """A part of what was asked for."""
        self._out.print(content, markup=False, end=end)
        self._out.file.flush()

    @contextmanager
    def steps(self) -> Iterator[Steps]:
        """Show steps that take a while, side by side."""
        if not self._status.is_terminal:
            yield Steps(self, None)
            return
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._status) as progress:
            yield Steps(self, progress)


class Steps:
    """Steps in progress: bars on a terminal, else a line at the begin and the end of each."""

    def __init__(self, terminal: Terminal, progress: Progress | None) -> None:
        self._terminal = terminal
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def begin(self, name: str, text: str) -> None:
        """A step starts."""
        if self._progress is None:
            self._terminal.status(f"{text} …")
        else:
            self._tasks[name] = self._progress.add_task(text, total=None)

    def advance(self, name: str, done: float, total: float) -> None:
        """So much of it is done; `total` 0 where that is not known."""
        if self._progress is not None:
            self._progress.update(self._tasks[name], completed=done, total=total or None)

    def finish(self, name: str, text: str) -> None:
        """The step is over; `text` says how it ended."""
        if self._progress is None:
            self._terminal.status(text)
        else:
            self._progress.update(self._tasks[name], description=text, completed=1, total=1)
