"""`headrace bench`: the load generator."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from headrace.cli import flags
from headrace.cli.flags import Commands, Parser, refuse

Add = Callable[..., Any]


def add_bench(commands: Commands) -> None:
    """Adds the command and its flags."""
    bench = commands.add_parser(
        "bench",
        help="load-test any OpenAI-compatible endpoint in tokens, with a verdict",
        description="Sends requests at the times they are due, whatever became of those before, and"
        " counts latency from then on. Exit code 0: the targets were met; 1: they were not, or the"
        " generator itself was late. An API key is taken from HEADRACE_API_KEY.",
    )
    bench.add_argument("url", type=flags.url, metavar="URL", help="http(s)://host:port")
    _add_arrivals(bench)
    _add_requests(bench)
    _add_endpoint(bench)
    _add_outcome(bench)
    bench.set_defaults(run=_bench)


def _add_arrivals(bench: Parser) -> None:
    group = bench.add_argument_group("what arrives (one of the first five)")
    add = group.add_mutually_exclusive_group().add_argument
    add("--rate", type=flags.above_zero, metavar="R", help="R requests a second, open loop")
    add("--rates", metavar="STEPS", help="steps and ramps, open loop: 5@60s,20@60s,2..10@120s")
    add("--users", type=flags.count, metavar="N", help="N users who wait for answers, closed loop")
    add(
        "--trace",
        type=Path,
        metavar="FILE",
        help="a trace at its own times, prefixes shared as in it: the formats of `simulate`",
    )
    add(
        "--traffic",
        metavar="KIND",
        help="multi_turn, agentic, code_completion, single_shots or shared_system_prompts, as in "
        "multi_turn:rate=20",
    )
    add = group.add_argument
    add(
        "--arrivals",
        default="poisson",
        metavar="PROCESS",
        help="of --rate and --rates: constant, poisson, gamma:cv=2, weibull:cv=2 (poisson)",
    )
    add("--think", default="0s", metavar="S", help="mean pause of --users, exponential (0s)")
    add(
        "--turns",
        type=flags.count,
        default=1,
        metavar="N",
        help="of the conversations of --users: a prompt is all that was said before, and more (1)",
    )
    add(
        "--speed",
        type=flags.above_zero,
        default=1.0,
        metavar="X",
        help="--trace and --traffic X times as fast (1)",
    )
    add("--duration", metavar="S", help="how long to send; of a trace, before --speed (30s)")
    add("--requests", type=flags.count, metavar="N", help="at most so many")
    add("--seed", type=flags.seed, default=0, metavar="N", help="of all that is random (0)")
    add(
        "--text-seed",
        type=flags.seed,
        metavar="N",
        help="of the prompts' words (another each time, so that none is cached from a run before)",
    )


def _add_requests(bench: Parser) -> None:
    add = bench.add_argument_group("what a request is").add_argument
    add(
        "--lengths",
        default="256/128",
        metavar="MIX",
        help="tokens in/out, ~CV for a spread, classes with weights: 256/128, 2500~1.5/250~1, "
        "short:64/128:9,long:32000/4000:1 (%(default)s)",
    )
    add(
        "--shared-prefix",
        metavar="TOKENS[:N]",
        help="before each prompt one of N system prompts of so many tokens",
    )
    add(
        "--leave",
        type=flags.number,
        default=0.0,
        metavar="SHARE",
        help="share of clients that go away within the answer (0)",
    )
    add("--tiers", metavar="NAMES", help="x-headrace-tier, drawn by weight: gold=1,batch=4")
    add("--endpoint", choices=("chat", "completions"), default="chat", help="(chat)")
    add("--no-stream", action="store_true", help="whole answers: no TTFT, no TPOT")
    add(
        "--natural-ends",
        action="store_true",
        help="the model ends its answers; without it, ignore_eos makes them as long as planned",
    )
    add("--extra-body", default="", metavar="JSON", help="members to add to each request")


def _add_endpoint(bench: Parser) -> None:
    add = bench.add_argument_group("the endpoint and the generator").add_argument
    add("--model", default="", metavar="NAME", help="(the first one that the endpoint lists)")
    add(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json, for prompts of exact length; needs the extra tokenizer (the engine's "
        "/tokenize, else the usage of first answers)",
    )
    add("--timeout", default="10m", metavar="S", help="of one answer (10m)")
    add(
        "--workers",
        type=flags.whole(1, 64),
        metavar="N",
        help="processes that send (as many as the load needs)",
    )
    add(
        "--max-lag",
        default="10ms",
        metavar="S",
        help="the run is invalid if over 1%% of requests are delayed by the generator for longer, "
        "and that puts a percentile up by more (10ms)",
    )


def _add_outcome(bench: Parser) -> None:
    add = bench.add_argument_group("the outcome").add_argument
    add(
        "--slo",
        action="append",
        default=[],
        metavar="TARGETS",
        help="ttft=2s,tpot=50ms,e2e=30s,share=99%%; of one tier: gold:ttft=1s; may be repeated "
        "(ttft=2s,tpot=50ms)",
    )
    add(
        "--sweep",
        action="store_true",
        help="find the highest rate that meets the targets, from --rate on (1), each run of "
        "--duration or of as many requests as show it; Ctrl-C, or `timeout 15m headrace …`, ends "
        "it with what is known",
    )
    add(
        "--precision",
        type=flags.above_zero,
        default=0.05,
        metavar="X",
        help="--sweep: share that the lowest rate not met may lie above the highest met (0.05)",
    )
    add(
        "--repeats",
        type=flags.count,
        default=3,
        metavar="N",
        help="--sweep: runs with other seeds until a rate is called undecided (3)",
    )
    add(
        "--proof",
        default=None,
        metavar="S",
        help="--sweep: how long a rate of the answer is tried at, of five at most, to show with "
        "95%% confidence between which two the highest lies; 0: a first look, nothing shown "
        "(12 times --duration: 6m)",
    )
    add("--json", action="store_true", help="the figures as JSON instead of tables")
    add("--raw", type=Path, metavar="FILE.jsonl", help="write every request, a line each")
    add("--report", type=Path, metavar="FILE.html", help="write a page with plots")


def _bench(options: argparse.Namespace) -> int:
    from headrace.bench.settings import BenchError
    from headrace.compose.bench.command import bench
    from headrace.compose.bench.input import BenchOptions
    from headrace.compose.process.terminal import Terminal

    given = {name: value for name, value in vars(options).items() if name != "run"}
    given["slo"] = tuple(given["slo"])
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return bench(BenchOptions(**given), Terminal())
    except BenchError as error:
        return refuse(str(error))
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    """The report so far, as with Ctrl-C: it is how a job of Kubernetes and `timeout` end a command.

    Only the first counts: `timeout` sends one to the command and one to its group.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.default_int_handler(number, frame)
