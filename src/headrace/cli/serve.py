"""`headrace serve`: the gateway in front of engines that already run."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli import flags
from headrace.cli.early_hangup import early_hangup
from headrace.cli.flags import Commands, refuse

if TYPE_CHECKING:
    from headrace.config.load import Loaded


def add_serve(commands: Commands) -> None:
    """Adds the command and its flags."""
    serve = commands.add_parser(
        "serve",
        help="the gateway in front of engines that already run",
        description="Runs the gateway as a configuration file says, until SIGTERM or Ctrl-C. "
        "SIGHUP reloads the file without cutting a stream.",
    )
    add = serve.add_argument
    add("-c", "--config", type=Path, required=True, metavar="FILE", help="the configuration")
    add("--port", type=flags.port, metavar="PORT", help="instead of the file's listen.port")
    add(
        "--control-port", type=flags.port, metavar="PORT", help="instead of the file's control.port"
    )
    add("--insecure", action="store_true", help="listen beyond loopback without keys or token")
    add("--verbose", action="store_true", help="say what limits hold, and why a scrape failed")
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    reload_asked = early_hangup()
    from headrace.compose.process.terminal import Terminal
    from headrace.compose.serve import serve
    from headrace.compose.serving.wiring import StartError
    from headrace.config.document import ConfigError
    from headrace.config.load import load

    def read() -> Loaded:
        return _with_ports(load(options.config, insecure=options.insecure), options)

    try:
        loaded = read()
        return serve(loaded, read, Terminal(), verbose=options.verbose, reload_asked=reload_asked)
    except (ConfigError, StartError) as error:
        return refuse(str(error))


def _with_ports(loaded: Loaded, options: argparse.Namespace) -> Loaded:
    config = loaded.config
    if options.port is not None:
        config = replace(config, listen=replace(config.listen, port=options.port))
    if options.control_port is not None:
        config = replace(config, control=replace(config.control, port=options.control_port))
    return replace(loaded, config=config)
