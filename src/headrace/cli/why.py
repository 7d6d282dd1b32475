"""`headrace why`: why a request went where it went."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from headrace.cli import flags
from headrace.cli.flags import FAILED, Commands, print_json, refuse

if TYPE_CHECKING:
    pass


def add_why(commands: Commands) -> None:
    """Adds the command and its flags."""
    why = commands.add_parser(
        "why",
        help="why a request went where it went",
        description="Explains a decision in seconds and tokens.",
    )
    add = why.add_argument
    add(
        "id",
        nargs="?",
        metavar="ID",
        help="x-headrace-request-id of the answer, or your own x-request-id; the last request "
        "without one",
    )
    add(
        "--control",
        type=flags.url,
        default="http://127.0.0.1:9091",
        metavar="URL",
        help="the control plane (http://127.0.0.1:9091)",
    )
    add("--json", action="store_true", help="everything the control plane knows, as JSON")
    why.set_defaults(run=_why)


def _why(options: argparse.Namespace) -> int:
    from headrace.compose.terminal import Terminal
    from headrace.compose.why import WhyError, explanation, layout

    try:
        document = explanation(options.control, options.id)
    except WhyError as error:
        return refuse(str(error), code=FAILED)
    if options.json:
        print_json(document)
    else:
        Terminal().page(layout(document))
    return 0
