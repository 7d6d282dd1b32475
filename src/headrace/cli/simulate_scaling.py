"""`headrace simulate scaling`: scaling policies side by side on weeks of demand."""

from __future__ import annotations

import argparse
from pathlib import Path

from headrace.cli import flags
from headrace.cli.flags import Commands, Parser, refuse


def add_simulate_scaling(commands: Commands) -> None:
    """Adds the command and its flags."""
    scaling = commands.add_parser(
        "scaling",
        help="scaling policies instead: attainment and replica-hours on weeks of demand",
        description="Plays demand against fleets that grow and shrink: Headrace's scaler, the "
        "code that runs live, and its peers' rules, each with its cold start, its HPA and its "
        "bill. The oracle knows the future: nobody can be better.",
    )
    _add_demand(scaling)
    add = scaling.add_argument
    add(
        "--scalers",
        metavar="A,B",
        help="which, with parameters if wanted: headrace,llmd_slo:up=0.45,down=0.3 (all)",
    )
    add("--cold-start", default="240s", metavar="S", help="from ordered to ready (%(default)s)")
    flags.add_slo(scaling, "(ttft=2s,tpot=50ms)")
    add("--profile", default="h100-llama-3.1-8b", metavar="NAME", help="of a replica (%(default)s)")
    add("--min", type=flags.whole(0, 100_000), default=1, metavar="N", help="replicas (1)")
    add("--max", type=flags.whole(1, 100_000), default=256, metavar="N", help="replicas (256)")
    add(
        "--mode",
        choices=("auto", "fluid", "events"),
        default="auto",
        help="a fluid for weeks, single requests for hours (auto: by length)",
    )
    add(
        "--policy",
        metavar="NAME",
        help="the router in front of the replicas; as a fluid least_requests or seconds "
        "(least_requests)",
    )
    add(
        "--sweep",
        action="store_true",
        help="try other margins and targets too, and show each scaler also at its best",
    )
    add("--seed", type=flags.seed, default=0, metavar="N", help="of all that is random (0)")
    add("--jobs", type=flags.count, metavar="N", help="scalers played at once (one per core)")
    add("--json", action="store_true", help="the figures as JSON instead of a table")
    add("--report", type=Path, metavar="FILE.html", help="write a page with plots")
    scaling.set_defaults(run=_simulate_scaling)


def _add_demand(scaling: Parser) -> None:
    demand = scaling.add_mutually_exclusive_group(required=True)
    demand.add_argument(
        "--rates",
        type=Path,
        metavar="FILE.csv",
        help="demand, a line per step: start_s, requests_per_s, mean_input_tokens, "
        "mean_output_tokens",
    )
    demand.add_argument(
        "--trace", type=Path, metavar="FILE", help="Mooncake or simple JSON lines, or Azure's CSV"
    )
    add = scaling.add_argument
    add(
        "--rate-scale",
        type=flags.above_zero,
        default=1.0,
        metavar="X",
        help="times as many requests as there are (1)",
    )
    add(
        "--lengths",
        metavar="FILE",
        help="how lengths lie around the means of --rates: as in this trace (lognormal:cv=1)",
    )
    add(
        "--history",
        type=Path,
        metavar="FILE",
        help="what came before, for scalers that remember: rates as --rates has them, or the file "
        "that a scaler keeps (scaling.history.file); the demand follows it at once",
    )


def _simulate_scaling(options: argparse.Namespace) -> int:
    from dataclasses import fields

    from headrace.compose.process.terminal import Terminal
    from headrace.compose.simulate.input import SimulateError, only_slo
    from headrace.compose.simulate.scaling import simulate_scaling
    from headrace.compose.simulate.scaling_input import ScalingOptions

    # The namespace has the flags of `simulate` too.
    given = {each.name: getattr(options, each.name) for each in fields(ScalingOptions)}
    try:
        given["slo"] = only_slo(given["slo"])
        return simulate_scaling(ScalingOptions(**given), Terminal())
    except SimulateError as error:
        return refuse(str(error))
