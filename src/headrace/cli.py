"""The command line: reads flags, calls one function per command, turns errors into exit codes.

What a command needs is imported when it runs, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

import headrace

if TYPE_CHECKING:
    from headrace.config import ConfigError, Loaded

    Commands = argparse._SubParsersAction["_Parser"]  # noqa: SLF001 - no public name

USAGE_ERROR = 2
"""Exit code for wrong flags, a wrong configuration, or an address that cannot be had."""
FAILED = 1
"""Exit code for a command that ran and could not do what was asked."""
MAX_REPLICAS = 64
MAX_SLOTS = 256
SMALLEST_CONTEXT_TOKENS = 256
"""A shorter one has no room for a chat template, a question and an answer."""
MAX_CONTEXT_TOKENS = 1_048_576


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the whole usage is one `--help` away."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"headrace: {message}; see `{self.prog} --help`\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `headrace check FILE | head`
        sys.stderr.close()
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The whole command line; the reference page is made from it."""
    root = _Parser(
        prog="headrace",
        description="A gateway for LLM serving: it measures and routes by the token, and says why.",
    )
    root.add_argument("--version", action="version", version=f"headrace {headrace.__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_up(commands)
    _add_serve(commands)
    _add_check(commands)
    _add_why(commands)
    _add_keys(commands)
    _add_engine(commands)
    _add_simulate(commands)
    return root


# ---------------------------------------------------------------- up


def _add_up(commands: Commands) -> None:
    up = commands.add_parser(
        "up",
        help="real engines on this machine with the gateway in front",
        description="Starts replicas of a real model on this machine and the gateway in front.",
    )
    add = up.add_argument
    add(
        "--replicas",
        type=_whole(1, MAX_REPLICAS),
        default=2,
        metavar="N",
        help="how many replicas (2)",
    )
    add("--model", type=Path, metavar="FILE.gguf", help="serve this model, not the small one")
    add(
        "--slots",
        type=_whole(1, MAX_SLOTS),
        default=4,
        metavar="N",
        help="requests a replica runs at once (4)",
    )
    add(
        "--context",
        type=_whole(SMALLEST_CONTEXT_TOKENS, MAX_CONTEXT_TOKENS),
        default=4096,
        metavar="TOKENS",
        help="prompt and answer together, per request (4096)",
    )
    add("--embeddings", action="store_true", help="answer /v1/embeddings too")
    add(
        "--policy",
        type=_policy,
        default="seconds",
        metavar="NAME[:PARAMETER=NUMBER,…]",
        help="how a replica is chosen (seconds); docs/reference/policies.md has them all",
    )
    add("--port", type=_port, metavar="PORT", help="of the gateway (8080); 0 takes a free one")
    add("--control-port", type=_port, metavar="PORT", help="of the control plane (9091)")
    add("--prompt", metavar="TEXT", help="ask once, show the answer with its figures, and exit")
    add(
        "--max-tokens",
        type=_count,
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
        return _refuse(str(error))


# ---------------------------------------------------------------- serve


def _add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="the gateway in front of engines that already run",
        description="Runs the gateway as a configuration file says, until SIGTERM or Ctrl-C. "
        "SIGHUP reloads the file without cutting a stream.",
    )
    add = serve.add_argument
    add("-c", "--config", type=Path, required=True, metavar="FILE", help="the configuration")
    add("--port", type=_port, metavar="PORT", help="instead of the file's listen.port")
    add("--control-port", type=_port, metavar="PORT", help="instead of the file's control.port")
    add("--insecure", action="store_true", help="listen beyond loopback without keys or token")
    add("--verbose", action="store_true", help="say what limits hold, and why a scrape failed")
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from headrace.compose.serve import serve
    from headrace.compose.terminal import Terminal
    from headrace.compose.wiring import StartError
    from headrace.config import ConfigError, load

    def read() -> Loaded:
        return _with_ports(load(options.config, insecure=options.insecure), options)

    try:
        return serve(read(), read, Terminal(), verbose=options.verbose)
    except (ConfigError, StartError) as error:
        return _refuse(str(error))


def _with_ports(loaded: Loaded, options: argparse.Namespace) -> Loaded:
    config = loaded.config
    if options.port is not None:
        config = replace(config, listen=replace(config.listen, port=options.port))
    if options.control_port is not None:
        config = replace(config, control=replace(config.control, port=options.control_port))
    return replace(loaded, config=config)


# ---------------------------------------------------------------- check


def _add_check(commands: Commands) -> None:
    check = commands.add_parser(
        "check",
        help="the configuration with every default filled in, or all that is wrong with it",
        description="Checks a configuration file and everything it points to.",
    )
    add = check.add_argument
    add("file", type=Path, nargs="?", metavar="FILE", help="the configuration")
    add("--json", action="store_true", help="JSON instead of YAML; seconds and bytes as numbers")
    add("--insecure", action="store_true", help="allow listening beyond loopback without keys")
    add("--schema", action="store_true", help="print the JSON Schema of the file instead")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from headrace.config import ConfigError, load
    from headrace.config.json_schema import schema_text
    from headrace.config.render import as_json, as_yaml

    if options.schema:
        sys.stdout.write(schema_text())
        return 0
    if options.file is None:
        return _refuse("check needs a FILE, or --schema")
    try:
        loaded = load(options.file, insecure=options.insecure)
    except ConfigError as error:
        if options.json:
            _print_json(_problems(error))
        return _refuse(str(error))
    for warning in loaded.warnings:
        sys.stderr.write(f"headrace: warning: {warning}\n")
    sys.stdout.write(as_json(loaded) if options.json else as_yaml(loaded))
    return 0


def _problems(error: ConfigError) -> dict[str, object]:
    problems = [
        {"line": each.line or None, "path": each.path, "message": each.message}
        for each in error.problems
    ]
    return {"file": error.source, "problems": problems}


# ---------------------------------------------------------------- why


def _add_why(commands: Commands) -> None:
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
        type=_url,
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
        return _refuse(str(error), code=FAILED)
    if options.json:
        _print_json(document)
    else:
        Terminal().page(layout(document))
    return 0


# ---------------------------------------------------------------- keys


def _add_keys(commands: Commands) -> None:
    keys = commands.add_parser(
        "keys", help="API keys for clients", description="API keys for clients of the gateway."
    )
    actions = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    new = actions.add_parser(
        "new",
        help="make a key",
        description="Makes a key, shows it once, and stores only its hash in the file.",
    )
    add = new.add_argument
    add("name", metavar="NAME", help="whose key it is")
    add("--file", type=Path, required=True, metavar="FILE", help="the api_keys_file to append to")
    add("--json", action="store_true", help="show it as JSON")
    new.set_defaults(run=_new_key)


def _new_key(options: argparse.Namespace) -> int:
    from headrace.gateway.keys import add_key, count_keys

    try:
        key = add_key(options.file, options.name)
        held = count_keys(options.file, options.name)
    except ValueError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{options.file}: cannot store the key: {error.strerror}")
    if options.json:
        _print_json({"name": options.name, "key": key})
    else:
        sys.stdout.write(f"{key}\n")
        sys.stderr.write(
            "This key is shown once; the file holds only its hash. A gateway that runs takes it "
            "after\nSIGHUP (kill -HUP PID) or a restart.\n"
        )
    if held > 1:
        sys.stderr.write(
            f"headrace: warning: {options.name} has {held} keys in {options.file} now, and each "
            "works;\nremove the line of one that is no longer wanted, then reload.\n"
        )
    return 0


# ---------------------------------------------------------------- engine


def _add_engine(commands: Commands) -> None:
    engine = commands.add_parser(
        "engine",
        help="emulated engines, for tests and for machines without a GPU",
        description="Serves vLLM's API and metrics; the answers are made up, their timing is not.",
    )
    add = engine.add_argument
    add(
        "--script",
        metavar="TIMES",
        help="every request alike: time to the first token and between tokens (ttft=50ms,itl=10ms)",
    )
    add(
        "--profile",
        metavar="NAME",
        help="as an engine on this GPU with this model would, such as h100-llama-3.1-8b: batching, "
        "KV cache, prefix caching",
    )
    add(
        "--time-scale",
        type=_above_zero,
        metavar="X",
        help="with --profile: X times as fast (1)",
    )
    add(
        "--kv-events",
        type=_port,
        metavar="PORT",
        help="with --profile: publish what is cached over ZMQ here, replay on the next port, the "
        "other engines on those that follow; 0 takes free ones. Needs the extra kv-events",
    )
    add("--count", type=_count, default=1, metavar="N", help="how many engines (1)")
    add(
        "--port",
        type=_port,
        default=8000,
        metavar="PORT",
        help="of the first one, the others follow (8000); 0 takes free ones",
    )
    add("--tokens", type=_count, default=128, metavar="N", help="tokens of an answer (128)")
    add("--model", default="emulated", metavar="NAME", help="the model's name (emulated)")
    engine.set_defaults(run=_engine)


def _engine(options: argparse.Namespace) -> int:
    from headrace.compose.engine import run_engines, timing_of
    from headrace.compose.terminal import Terminal
    from headrace.compose.wiring import StartError
    from headrace.emulator.script import Script
    from headrace.emulator.settings import EngineSettings

    try:
        timing = timing_of(options.script, options.profile, options.time_scale, options.kv_events)
        if isinstance(timing, Script):
            settings = EngineSettings(model=options.model, output_tokens=options.tokens)
        else:
            settings = timing.settings(options.model, options.tokens)
        return run_engines(
            settings, timing, count=options.count, port=options.port, terminal=Terminal()
        )
    except (ValueError, StartError) as error:
        return _refuse(str(error))


# ---------------------------------------------------------------- simulate


def _add_simulate(commands: Commands) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="routing policies side by side on your trace, without GPUs",
        description="Plays a trace against modelled engines, with the code that routes live. A "
        "policy sees what a gateway sees, no more. pooled_reference is all replicas as one engine.",
    )
    add = simulate.add_argument
    arriving = simulate.add_mutually_exclusive_group(required=True)
    arriving.add_argument(
        "--trace", type=Path, metavar="FILE", help="Mooncake or simple JSON lines, or Azure's CSV"
    )
    arriving.add_argument(
        "--traffic",
        metavar="KIND",
        help="made up instead: multi_turn, agentic, code_completion, single_shots or "
        "shared_system_prompts, as in multi_turn:rate=20,requests=5000",
    )
    add("--speed", type=_above_zero, default=1.0, metavar="X", help="times as fast as it is (1)")
    add("--duration", metavar="S", help="only its first seconds, counted before --speed")
    add("--replicas", type=_count, default=8, metavar="N", help="how many engines (8)")
    add(
        "--profile", default="h100-llama-3.1-8b", metavar="NAME", help="what they are (%(default)s)"
    )
    add(
        "--policies",
        default="",
        metavar="A,B",
        help="which, with parameters if wanted: seconds,dynamo_kv:overlap_weight=4 (all)",
    )
    add(
        "--sweep",
        action="store_true",
        help="try other parameters too, and show each policy also at its best",
    )
    add("--slo", default="ttft=2s,tpot=50ms", metavar="TIMES", help="of goodput (%(default)s)")
    add("--scrape-lag", default="1s", metavar="S", help="age of scraped metrics (1s)")
    add(
        "--mismatch",
        type=float,
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
    add("--seed", type=_seed, default=0, metavar="N", help="of all that is random (0)")
    add("--jobs", type=_count, metavar="N", help="policies played at once (one per core)")
    add("--json", action="store_true", help="the figures as JSON instead of a table")
    add("--timing", type=Path, metavar="FILE", help="write how long each run took, as JSON")
    add("--report", type=Path, metavar="FILE.html", help="write a page with plots")
    simulate.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> int:
    from headrace.compose.simulate import simulate
    from headrace.compose.simulation_input import SimulateError, SimulateOptions
    from headrace.compose.terminal import Terminal

    given = {name: value for name, value in vars(options).items() if name != "run"}
    try:
        return simulate(SimulateOptions(**given), Terminal())
    except SimulateError as error:
        return _refuse(str(error))


# ---------------------------------------------------------------- flags and endings


def _policy(text: str) -> str:
    from headrace.core.policies import make_policy

    try:
        make_policy(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _whole(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers in this range."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least:,} to {most:,}"
            )
        return number

    return read


_count = _whole(1, 1_000_000)
_port = _whole(0, 65535)
_seed = _whole(0, 2**63 - 1)


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not a URL; write it as http://host:port")
    return text


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _refuse(message: str, *, code: int = USAGE_ERROR) -> int:
    for line in message.splitlines():
        sys.stderr.write(f"headrace: {line}\n")
    return code
