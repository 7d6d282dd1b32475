"""`headrace scaler`: how many replicas each pool should have, for KEDA and Prometheus."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.early_hangup import early_hangup
from headrace.cli.flags import Commands, refuse

if TYPE_CHECKING:
    from headrace.config.load import Loaded


def add_scaler(commands: Commands) -> None:
    """Adds the command and its flags."""
    scaler = commands.add_parser(
        "scaler",
        help="how many replicas each pool should have, for KEDA",
        description="Asks the gateways named under `scaling.gateways` what is asked of them, "
        "decides how many replicas each pool should have, and answers KEDA (gRPC and metrics-api) "
        "and Prometheus, until SIGTERM or Ctrl-C. SIGHUP takes up changed settings of its pools.",
    )
    add = scaler.add_argument
    add("-c", "--config", type=Path, required=True, metavar="FILE", help="the configuration")
    add("--insecure", action="store_true", help="answer beyond loopback without TLS")
    scaler.set_defaults(run=_scaler)


def _scaler(options: argparse.Namespace) -> int:
    reload_asked = early_hangup()
    from headrace.compose.process.terminal import Terminal
    from headrace.compose.scaler_alone import run_scaler
    from headrace.compose.serving.wiring import StartError
    from headrace.config.document import ConfigError
    from headrace.config.load import load

    def read() -> Loaded:
        return load(options.config, insecure=options.insecure)

    try:
        return run_scaler(read(), read, Terminal(), reload_asked=reload_asked)
    except (ConfigError, StartError) as error:
        return refuse(str(error))
