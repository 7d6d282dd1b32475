"""`headrace why`: why a request went where it went, or why there are so many replicas."""

from __future__ import annotations

import argparse

from headrace.cli import flags
from headrace.cli.flags import FAILED, Commands, print_json, refuse


def add_why(commands: Commands) -> None:
    """Adds the command and its flags."""
    why = commands.add_parser(
        "why",
        help="why a request went where it went, or why there are so many replicas",
        description="Explains a decision in seconds and tokens, or with --scaling the number of "
        "replicas.",
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
    add(
        "--scaling",
        action="store_true",
        help="why each pool has as many replicas as it has, step by step",
    )
    add("--json", action="store_true", help="everything the control plane knows, as JSON")
    why.set_defaults(run=_why)


def _why(options: argparse.Namespace) -> int:
    from headrace.compose.process.terminal import Terminal
    from headrace.compose.why.decision import WhyError, explanation, layout
    from headrace.compose.why.scaling import layout_scaling, scaling

    if options.scaling and options.id is not None:
        return refuse("--scaling is about pools; leave out the id of a request")
    try:
        if options.scaling:
            document, lay_out = scaling(options.control), layout_scaling
        else:
            document, lay_out = explanation(options.control, options.id), layout
    except WhyError as error:
        return refuse(str(error), code=FAILED)
    if options.json:
        print_json(document)
    else:
        Terminal().page(lay_out(document))
    return 0
