"""The command line: reads flags, calls one function per command, turns errors into exit codes.

One file per command. What a command needs is imported when it runs, so that `--help` and
`--version` answer at once.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import headrace
from headrace.cli.bench import add_bench
from headrace.cli.calibrate import add_calibrate
from headrace.cli.check import add_check
from headrace.cli.engine import add_engine
from headrace.cli.flags import FAILED, HelpFormatter, Parser
from headrace.cli.keys import add_keys
from headrace.cli.scaler import add_scaler
from headrace.cli.serve import add_serve
from headrace.cli.simulate import add_simulate
from headrace.cli.standard_streams import open_closed_streams
from headrace.cli.up import add_up
from headrace.cli.why import add_why
from headrace.compose.process.exit_codes import INTERRUPTED
from headrace.edges.build import changed_sources

_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        open_closed_streams()
        options = parser().parse_args(arguments)
        _tell_if_outdated()
        code = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `headrace check FILE | head`
        sys.stderr.close()
        return FAILED
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with suppress(OSError):
            sys.stdout.flush()  # it may have been another file that is on the full disk
        sys.stderr.write(f"headrace: cannot write the output: {error.strerror}\n")
        # What is left in the buffer cannot be written at the exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _tell_if_outdated() -> None:
    """A compiled build does not follow its sources: nobody is to take it for them."""
    if (changed := changed_sources()) is not None:
        sys.stderr.write(
            f"headrace: warning: {changed} has changed since this was compiled from it: what runs "
            "is the old code; `make compiled` builds it again\n"
        )


def parser() -> Parser:
    """The whole command line; the reference page is made from it."""
    root = Parser(
        prog="headrace",
        description="A gateway for LLM serving: it measures, routes and scales by the token, and "
        "says why.",
        epilog="`headrace COMMAND --help` tells a command's flags; what stands there in "
        "parentheses holds without the flag.",
        formatter_class=HelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"headrace {headrace.__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_up(commands)
    add_serve(commands)
    add_scaler(commands)
    add_check(commands)
    add_why(commands)
    add_keys(commands)
    add_engine(commands)
    add_bench(commands)
    add_simulate(commands)
    add_calibrate(commands)
    return root
