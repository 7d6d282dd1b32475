"""Writes docs/reference/cli.md from the command line itself: `python -m tools.cli_reference`."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from headrace.cli import parser
from headrace.cli.flags import HelpFormatter

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 96

_HEAD = """\
# Command line

What each command says with `--help`. This page is made from the code:
`python -m tools.cli_reference`.

Exit codes: 0 done (a gateway that was asked to stop and drained too), 1 it ran and could not do
what was asked (a gateway that cut requests off when it stopped, after a second signal or at the end
of its drain, too), 2 wrong flags, a wrong configuration, or an address that cannot be had, 130
Ctrl-C before it was done. Errors go to stderr, one line each. Results go to stdout, progress to
stderr.
"""


def page() -> str:
    """The whole page."""
    parts = [f"\n## `{each.prog}`\n\n```text\n{_help(each)}```\n" for each in _all(parser())]
    return _HEAD + "".join(parts)


def _all(root: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield root
    for action in root._actions:  # noqa: SLF001 - argparse has no public way to its commands
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - the same
            for command in action.choices.values():
                yield from _all(command)


def _help(command: argparse.ArgumentParser) -> str:
    # A fixed width, or the page would depend on the terminal that made it.
    command.formatter_class = _Formatter
    return command.format_help()


class _Formatter(HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """As Python 3.13 writes it, `-c, --config FILE`, whichever makes the page."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = ""
        if action.nargs != 0:
            value = " " + self._format_args(action, self._get_default_metavar_for_optional(action))
        return ", ".join(action.option_strings) + value


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
