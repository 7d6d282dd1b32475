"""What all commands have in common: readers of flags, exit codes, endings."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias
from urllib.parse import urlsplit

from headrace.core.names import misnamed

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - no public name

USAGE_ERROR = 2
"""Exit code for wrong flags, a wrong configuration, or an address that cannot be had."""
FAILED = 1
"""Exit code for a command that ran and could not do what was asked."""


class HelpFormatter(argparse.HelpFormatter):
    """Puts what a command does beside its name; argparse forgets how far names are indented."""

    def add_argument(self, action: argparse.Action) -> None:
        """Make the column as wide as the longest name with its indentation."""
        super().add_argument(action)
        for command in self._iter_indented_subactions(action):
            name = self._format_action_invocation(command)
            width = len(name) + self._current_indent
            self._action_max_length = max(self._action_max_length, width)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the whole usage is one `--help` away."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as argparse takes them
        super().__init__(**options)
        # `-5s` behind a flag is a value, and its reader says what is wrong with it; argparse takes
        # only plain negative numbers for values, and anything else for a flag nobody knows.
        self._negative_number_matcher = re.compile(r"-\.?[0-9]")
        self._given: list[str] = []

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - of its overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse; what is left over is an error here, so that the right `--help` is named."""
        self._given = list(sys.argv[1:] if args is None else args)
        known, unknown = super().parse_known_args(args, namespace or argparse.Namespace())
        if unknown:
            hints = "".join(self._meant(each) for each in unknown)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hints}")
        return known, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401 - as argparse
        """As argparse, but of a command that there is not, say what was meant.

        Behind a flag that is not known argparse takes the flag's value for a command.
        """
        names = list(action.choices or ())
        if action.nargs != argparse.PARSER or value in names:
            super()._check_value(action, value)
            return
        self._refuse_unknown_flag(self._given[: self._given.index(value)])
        self.error(f"no command {misnamed(value, names)}")

    def _refuse_unknown_flag(self, given: Sequence[str]) -> None:
        for each in given:
            if each == "--":
                return
            if each.startswith("--") and not self._get_option_tuples(each.partition("=")[0]):
                message = f"unrecognized arguments: {each}{self._meant(each)}"
                self.exit(USAGE_ERROR, f"headrace: {message}; see `{self.prog} --help`\n")

    def _meant(self, given: str) -> str:
        """The flag that one comes near to, as half a sentence."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        near = get_close_matches(given.partition("=")[0], flags, n=1)
        return f"; did you mean {near[0]}?" if near and given.startswith("--") else ""

    def error(self, message: str) -> NoReturn:
        """Exits with `USAGE_ERROR`."""
        if "required" in message:  # a misspelt flag is not there, and was not forgotten
            self._refuse_unknown_flag(self._given)
        self.exit(USAGE_ERROR, f"headrace: {message}; see `{self.prog} --help`\n")


if TYPE_CHECKING:
    _SubCommands = argparse._SubParsersAction[Parser]  # noqa: SLF001 - no public name
else:  # generic for type checkers alone
    _SubCommands = argparse._SubParsersAction  # noqa: SLF001


class Others(_SubCommands):
    """Commands within a command that has flags of its own: argparse would take a flag of the outer
    one that stands before the inner one's name, and forget its value without a word.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Refuse such a flag, unless it says no more than its default does."""
        inner = values[0] if values else ""
        for name, value in vars(namespace).items():
            if value != parser.get_default(name):
                flag = "--" + name.replace("_", "-")
                parser.error(
                    f"{flag} before {inner} would not be read; write it behind, if {inner} takes "
                    f"it: `{parser.prog} {inner} {flag} ...`"
                )
        super().__call__(parser, namespace, values, option_string)


def policy(text: str) -> str:
    """A policy, with parameters if wanted, as `make_policy` reads it."""
    from headrace.core.policies import make_policy

    try:
        make_policy(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers in this range."""

    def read(text: str) -> int:
        from headrace.core.quantities import parse_whole

        try:
            number = parse_whole(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least:,} to {most:,}"
            )
        return number

    return read


count = whole(1, 1_000_000)
kv_tokens = whole(1, 1_000_000_000)
port = whole(0, 65535)
seed = whole(0, 2**63 - 1)


def above_zero(text: str) -> float:
    """A finite number above 0."""
    from headrace.core.quantities import parse_number

    try:
        number = parse_number(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def number(text: str) -> float:
    """Any number, whose range is checked later."""
    from headrace.core.quantities import parse_number

    try:
        return parse_number(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def duration(text: str) -> float:
    """Seconds, written as `10s`, `5m` or a bare number."""
    from headrace.core.quantities import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None
    if seconds < 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return seconds


def add_slo(parser: Parser, meaning: str) -> None:
    """`--slo` of what has no tiers: a list, so that one given twice is seen."""
    parser.add_argument("--slo", action="append", default=[], metavar="TIMES", help=meaning)


def name(text: str) -> str:
    """What something is to be called: not nothing, and text."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is no name; give one, or leave the flag out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8 text") from None
    return text


def url(text: str) -> str:
    """An http or https URL with a host."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        good = good and parts.username is None
    except ValueError:
        good = False
    if not good and "@" in text:  # not shown: what stands before it may be a password
        raise argparse.ArgumentTypeError(
            "a URL with a user or password in it is not used, and not shown; write it as "
            "http://host:port and give a key by its variable (HEADRACE_API_KEY, or the one that "
            "--api-key-env names)"
        )
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL; write it as http://host:port")
    return text


def print_json(value: object) -> None:
    """Writes indented JSON to stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def refuse(message: str, *, code: int = USAGE_ERROR) -> int:
    """Writes the message to stderr, each line with our name, and returns the exit code."""
    for line in message.splitlines():
        sys.stderr.write(f"headrace: {line}\n")
    return code
