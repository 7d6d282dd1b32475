"""What a person sees: status on stderr, results on stdout; plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

_PIPE_COLUMNS = 200
"""Width of tables where no terminal sets one."""
_BAR_COLUMNS = 20


class Terminal:
    """The two streams of a command."""

    def __init__(self) -> None:
        # No guessing at what numbers and URLs mean, no wrapping inside a URL or a curl line.
        self._out = Console(highlight=False, soft_wrap=True)
        if not self._out.is_terminal:
            self._out.width = _PIPE_COLUMNS
        self._status = Console(stderr=True, highlight=False, soft_wrap=True)

    @property
    def width(self) -> int:
        """Characters of a line of results."""
        return self._out.width

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

    def page(self, content: RenderableType) -> None:
        """Tables and sentences, laid out for the width there is."""
        _lay_out(self._out, content)

    def details(self, lines: Iterable[str]) -> None:
        """More about a problem, each line laid out for the width there is."""
        for line in lines:
            _lay_out(self._status, Padding(Text(line), (0, 0, 0, 2), expand=False))

    @contextmanager
    def steps(self) -> Iterator[Steps]:
        """Show steps that take a while, side by side, until each is over."""
        if not self._status.is_terminal:
            yield Steps(self, None)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _KnownBar(),
            TimeElapsedColumn(),
        )
        # What is over stays as a line of its own; what still turns when it ends tells nothing.
        with Progress(*columns, console=self._status, transient=True) as progress:
            yield Steps(self, progress)

    @contextmanager
    def board(self) -> Iterator[Board]:
        """A few lines that change in place; gone when the work is over."""
        if not self._status.is_terminal:
            yield Board(None)
            return
        # No thread of its own refreshes it: whoever shows something new says so.
        with Live(console=self._status, auto_refresh=False, transient=True) as live:
            yield Board(live)


class Board:
    """What `Terminal.board` gives; without a terminal nothing can move."""

    def __init__(self, live: Live | None) -> None:
        self._live = live

    @property
    def moves(self) -> bool:
        """Whether `show` shows anything."""
        return self._live is not None

    def show(self, content: RenderableType) -> None:
        """Put this in the place of what is shown."""
        if self._live is not None:
            self._live.update(content, refresh=True)


class _KnownBar(ProgressColumn):
    """A bar where the end is known; a bar that only moves would say what the spinner says."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = BarColumn(bar_width=_BAR_COLUMNS)

    def render(self, task: Task) -> RenderableType:
        return Text() if task.total is None else self._bar.render(task)


class Steps:
    """Steps in progress: a moving line each on a terminal, else a line at its begin and its end."""

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

    def describe(self, name: str, text: str) -> None:
        """Say what the step does now; without a terminal nobody watches it."""
        if self._progress is not None:
            self._progress.update(self._tasks[name], description=text)

    def remark(self, text: str) -> None:
        """A line where there is no terminal to show a moving one."""
        if self._progress is None:
            self._terminal.status(text)

    def advance(self, name: str, done: float, total: float) -> None:
        """So much of it is done; `total` 0 where that is not known."""
        if self._progress is not None:
            self._progress.update(self._tasks[name], completed=done, total=total or None)

    def finish(self, name: str, text: str) -> None:
        """The step is over; `text` says how it ended."""
        if self._progress is None:
            self._terminal.status(text)
            return
        if (task := self._tasks.pop(name, None)) is not None:
            self._progress.remove_task(task)
        self._terminal.status(f"✓ {text}")


def _lay_out(console: Console, content: RenderableType) -> None:
    """Print in lines of the console's width."""
    if console.is_terminal:
        console.print(content, markup=False, soft_wrap=False)
        return
    # Rich fills lines up with blanks, and in a file nobody needs those.
    with console.capture() as captured:
        console.print(content, markup=False, soft_wrap=False)
    console.file.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def counted(number: float, what: str) -> str:
    """`1 request`, `2,000 requests`."""
    return f"{number:,.0f} {what}{'' if number == 1 else 's'}"


def cut_off(requests: int) -> str:
    """What is said of requests that did not end in time."""
    return f"{counted(requests, 'request')} {'was' if requests == 1 else 'were'} cut off"
