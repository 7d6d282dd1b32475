"""`headrace up`: real engines on this machine with the gateway in front."""

from __future__ import annotations

import argparse
from pathlib import Path

from headrace.cli import flags
from headrace.cli.flags import Commands, refuse

MAX_REPLICAS = 64
MAX_SLOTS = 256
SMALLEST_CONTEXT_TOKENS = 256
"""A shorter one has no room for a chat template, a question and an answer."""
MAX_CONTEXT_TOKENS = 1_048_576


def add_up(commands: Commands) -> None:
    """Adds the command and its flags."""
    up = commands.add_parser(
        "up",
        help="real engines on this machine with the gateway in front",
        description="Starts replicas of a real model on this machine and the gateway in front.",
    )
    add = up.add_argument
    add(
        "--replicas",
        type=flags.whole(1, MAX_REPLICAS),
        metavar="N",
        help="how many replicas (2)",
    )
    _add_scale(up)
    add("--model", type=Path, metavar="FILE.gguf", help="serve this model, not the small one")
    add(
        "--slots",
        type=flags.whole(1, MAX_SLOTS),
        default=4,
        metavar="N",
        help="requests a replica runs at once (4)",
    )
    add(
        "--context",
        type=flags.whole(SMALLEST_CONTEXT_TOKENS, MAX_CONTEXT_TOKENS),
        default=4096,
        metavar="TOKENS",
        help="prompt and answer together, per request (4096)",
    )
    add("--embeddings", action="store_true", help="answer /v1/embeddings too")
    add(
        "--policy",
        type=flags.policy,
        default="seconds",
        metavar="NAME[:PARAMETER=NUMBER,…]",
        help="how a replica is chosen (seconds); docs/reference/policies.md has them all",
    )
    add(
        "--profile",
        metavar="FILE.yaml",
        help="latency profile of the replicas, by headrace calibrate, instead of measuring one for "
        "5 s; a shipped one's name does, too",
    )
    add("--port", type=flags.port, metavar="PORT", help="of the gateway (8080); 0 takes a free one")
    add("--control-port", type=flags.port, metavar="PORT", help="of the control plane (9091)")
    add("--prompt", metavar="TEXT", help="ask once, show the answer with its figures, and exit")
    add(
        "--max-tokens",
        type=flags.count,
        metavar="N",
        help="longest answer to --prompt (256)",
    )
    add("--json", action="store_true", help="show the answer to --prompt, or the URLs, as JSON")
    add(
        "--verbose", action="store_true", help="say where the replicas log, and why a scrape failed"
    )
    up.set_defaults(run=_up)


def _add_scale(up: flags.Parser) -> None:
    """Adds what says that replicas start and end with load."""
    add = up.add_argument
    add(
        "--scale",
        type=_scale,
        metavar="LEAST:MOST",
        help="start and end replicas with load, as in 1:4; 0:4 keeps none while nothing is asked",
    )
    add(
        "--standby",
        type=flags.whole(0, MAX_REPLICAS),
        default=0,
        metavar="N",
        help="with --scale: replicas kept loaded, which join at once (0)",
    )


def _scale(text: str) -> tuple[int, int]:
    """`1:4` as two numbers of replicas."""
    from headrace.core.quantities import parse_whole

    least, colon, most = text.partition(":")
    try:
        numbers = (parse_whole(least), parse_whole(most))
    except ValueError:
        numbers = (-1, -1)
    if not colon or not 0 <= numbers[0] <= numbers[1] <= MAX_REPLICAS or not numbers[1]:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no range of replicas; write it as LEAST:MOST, such as 1:4, from 0 to "
            f"{MAX_REPLICAS}"
        )
    return numbers


def _up(options: argparse.Namespace) -> int:
    from headrace.compose.process.terminal import Terminal
    from headrace.compose.serving.wiring import StartError
    from headrace.compose.up.command import UpOptions, up
    from headrace.compose.up.scaling import ScaleRange

    if options.scale is None and options.standby:
        return refuse("--standby needs --scale, as in --scale 1:4")
    if options.scale is not None and options.replicas is not None:
        return refuse("--replicas and --scale both say how many there are; give one of them")
    if options.max_tokens is not None and options.prompt is None:
        return refuse(
            "--max-tokens is about the answer to --prompt; give a prompt, or leave it out"
        )
    given = {name: value for name, value in vars(options).items() if name != "run"}
    if options.max_tokens is None:
        del given["max_tokens"]
    standby = given.pop("standby")
    if options.scale is not None:
        least, most = options.scale
        given["scale"] = ScaleRange(least, most, standby)
    try:
        return up(UpOptions(**given), Terminal())
    except StartError as error:
        return refuse(str(error))
