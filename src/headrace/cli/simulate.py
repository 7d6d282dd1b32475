"""`headrace simulate`: routing policies side by side on a trace."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from headrace.cli import flags
from headrace.cli.flags import Commands, Parser, refuse
from headrace.cli.simulate_scaling import add_simulate_scaling

_replicas = flags.whole(1, 10_000)


def add_simulate(commands: Commands) -> None:
    """Adds the command and its flags."""
    simulate = commands.add_parser(
        "simulate",
        help="routing policies side by side on your trace, without GPUs",
        description="Plays a trace against modelled engines, with the code that routes live. A "
        "policy sees what a gateway sees, no more. pooled_reference is all replicas as one engine.",
    )
    _add_traffic(simulate)
    add = simulate.add_argument
    add("--replicas", type=_replicas, default=8, metavar="N", help="engines, up to 10,000 (8)")
    add(
        "--profile",
        default="h100-llama-3.1-8b",
        metavar="NAME",
        help="what they are (%(default)s), or the file of a measured one, *.yaml",
    )
    add(
        "--kv-tokens",
        type=flags.kv_tokens,
        metavar="N",
        help="tokens of KV cache of each (as the profile says)",
    )
    add(
        "--policies",
        metavar="A,B",
        help="which, with parameters if wanted: seconds,dynamo_kv:overlap_weight=4 (all); "
        "docs/reference/policies.md has them",
    )
    add(
        "--sweep",
        action="store_true",
        help="try other parameters too, and show each policy also at its best",
    )
    flags.add_slo(simulate, "of goodput (ttft=2s,tpot=50ms)")
    add("--scrape-lag", default="1s", metavar="S", help="delay of metrics, read once a second (1s)")
    add(
        "--mismatch",
        type=flags.number,
        default=0.0,
        metavar="M",
        help="share by which each engine may be off what the policy believes of it (0)",
    )
    add(
        "--index",
        choices=("approximate", "exact"),
        default="approximate",
        help="the prefix index guesses, or knows by KV events (approximate)",
    )
    add("--seed", type=flags.seed, default=0, metavar="N", help="of all that is random (0)")
    add("--jobs", type=flags.count, metavar="N", help="policies played at once (one per core)")
    add("--json", action="store_true", help="the figures as JSON instead of a table")
    add("--timing", type=Path, metavar="FILE", help="write how long each run took, as JSON")
    add("--report", type=Path, metavar="FILE.html", help="write a page with plots")
    more = simulate.add_subparsers(
        title="other comparisons", metavar="[scaling]", action=flags.Others
    )
    add_simulate_scaling(more)
    simulate.set_defaults(run=partial(_simulate, simulate))


def _add_traffic(simulate: Parser) -> None:
    add = simulate.add_argument
    # One of them is needed, but not where another comparison is asked for: see `_simulate`.
    arriving = simulate.add_mutually_exclusive_group()
    arriving.add_argument(
        "--trace", type=Path, metavar="FILE", help="Mooncake or simple JSON lines, or Azure's CSV"
    )
    arriving.add_argument(
        "--traffic",
        metavar="KIND",
        help="made up instead: multi_turn, agentic, code_completion, single_shots or "
        "shared_system_prompts, as in multi_turn:rate=20,requests=5000",
    )
    add(
        "--speed",
        type=flags.above_zero,
        default=1.0,
        metavar="X",
        help="times as fast as it is (1)",
    )
    add("--duration", metavar="S", help="only its first seconds, counted before --speed")


def _simulate(command: Parser, options: argparse.Namespace) -> int:
    if options.trace is None and options.traffic is None:
        command.error("one of the arguments --trace --traffic is required")
    from headrace.compose.process.terminal import Terminal
    from headrace.compose.simulate.command import simulate
    from headrace.compose.simulate.input import SimulateError, SimulateOptions, only_slo

    given = {name: value for name, value in vars(options).items() if name != "run"}
    try:
        given["slo"] = only_slo(given["slo"])
        return simulate(SimulateOptions(**given), Terminal())
    except SimulateError as error:
        return refuse(str(error))
