"""`headrace up`: real engines on this machine with the gateway in front."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli import flags
from headrace.cli.flags import Commands, refuse

if TYPE_CHECKING:
    pass


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
        default=2,
        metavar="N",
        help="how many replicas (2)",
    )
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
        default=256,
        metavar="N",
        help="longest answer to --prompt (256)",
    )
    add("--json", action="store_true", help="show the answer to --prompt, or the URLs, as JSON")
    add(
        "--verbose", action="store_true", help="say where the replicas log, and why a scrape failed"
    )
    up.set_defaults(run=_up)


def _up(options: argparse.Namespace) -> int:
    from headrace.compose.terminal import Terminal
    from headrace.compose.up import UpOptions, up
    from headrace.compose.wiring import StartError

    given = {name: value for name, value in vars(options).items() if name != "run"}
    try:
        return up(UpOptions(**given), Terminal())
    except StartError as error:
        return refuse(str(error))
