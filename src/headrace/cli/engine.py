"""`headrace engine`: emulated engines."""

from __future__ import annotations

import argparse
from dataclasses import replace

from headrace.cli import flags
from headrace.cli.flags import Commands, refuse


def add_engine(commands: Commands) -> None:
    """Adds the command and its flags."""
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
        "KV cache, prefix caching; or the file of a measured one, *.yaml",
    )
    _add_model_flags(engine)
    add("--count", type=flags.count, default=1, metavar="N", help="how many engines (1)")
    add(
        "--port",
        type=flags.port,
        default=8000,
        metavar="PORT",
        help="of the first one, the others follow (8000); 0 takes free ones",
    )
    add(
        "--load-time",
        type=flags.duration,
        default=0.0,
        metavar="TIME",
        help="listen only after so long, as an engine that loads a model (0s)",
    )
    add(
        "--sleep-mode",
        type=flags.duration,
        metavar="TIME",
        help="serve vLLM's /sleep, /wake_up and /is_sleeping; weights take so long to come back",
    )
    add("--tokens", type=flags.count, default=128, metavar="N", help="tokens of an answer (128)")
    add(
        "--model",
        type=flags.name,
        default="emulated",
        metavar="NAME",
        help="the model's name (emulated)",
    )
    engine.set_defaults(run=_engine)


def _add_model_flags(engine: argparse.ArgumentParser) -> None:
    """What only modelled engines take."""
    add = engine.add_argument
    add(
        "--kv-tokens",
        type=flags.kv_tokens,
        metavar="N",
        help="with --profile: tokens of KV cache (as the profile says)",
    )
    add(
        "--time-scale",
        type=flags.above_zero,
        metavar="X",
        help="with --profile: X times as fast (1)",
    )
    add(
        "--kv-events",
        type=flags.port,
        metavar="PORT",
        help="with --profile: publish what is cached over ZMQ here, replay on the next port, the "
        "other engines on those that follow; 0 takes free ones. Needs the extra kv-events",
    )


def _engine(options: argparse.Namespace) -> int:
    from headrace.compose.engine import run_engines, timing_of
    from headrace.compose.process.terminal import Terminal
    from headrace.compose.serving.wiring import StartError
    from headrace.config.document import ConfigError
    from headrace.emulator.script import Script
    from headrace.emulator.settings import EngineSettings

    try:
        timing = timing_of(
            options.script,
            options.profile,
            options.time_scale,
            options.kv_events,
            kv_tokens=options.kv_tokens,
        )
        if isinstance(timing, Script):
            settings = EngineSettings(model=options.model, output_tokens=options.tokens)
        else:
            settings = timing.settings(options.model, options.tokens)
        return run_engines(
            replace(settings, wake_s=options.sleep_mode),
            timing,
            count=options.count,
            port=options.port,
            load_s=options.load_time,
            terminal=Terminal(),
        )
    except (ValueError, StartError, ConfigError) as error:
        return refuse(str(error))
