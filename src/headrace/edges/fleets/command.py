"""Replicas that a command of the user's starts, one process each on a port of its own."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import dataclass, field

from headrace.edges.fleets.keep_alive import KeepAlive, LocalFleetError
from headrace.edges.fleets.sleep_mode import SleepSettings

PORT = "{port}"
_CHILD_MODULE = "headrace.edges.fleets.command_child"
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettings(KeepAlive):
    """A command that serves one replica until SIGTERM."""

    command: tuple[str, ...]
    """The command and its arguments. `{port}` in them is the port to listen on, at 127.0.0.1."""
    health_path: str = "/health"
    """Answers 200 as soon as the replica is ready."""
    sleep: SleepSettings | None = None
    """How replicas that stand by sleep (`engine: vllm` with its sleep mode); without it they wait
    as they are, loaded."""


@dataclass(frozen=True, slots=True)
class CommandReplicas:
    """Replicas started by a command."""

    settings: CommandSettings

    @property
    def keep(self) -> KeepAlive:
        """How they are kept alive."""
        return self.settings

    def check(self) -> None:
        """Raises LocalFleetError if none could ever start."""
        command = self.settings.command
        if not any(PORT in part for part in command):
            raise LocalFleetError(
                f"the command {' '.join(command)!r} does not say {PORT}; each replica is given a "
                "port of its own to listen on"
            )
        program = command[0]
        if program != "headrace" and shutil.which(program) is None:
            raise LocalFleetError(f"the command {program!r} is not on PATH")

    def launch(self) -> CommandLaunch:
        """How the next one is started, on a port that is free now."""
        with socket.create_server((_HOST, 0)) as probe:
            port = probe.getsockname()[1]
        return CommandLaunch(self.settings.command, self.settings.health_path, port)


@dataclass(frozen=True, slots=True)
class CommandLaunch:
    """One start."""

    command: tuple[str, ...]
    health_path: str
    port: int
    url: str = field(init=False)
    """Where it will listen."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", f"http://{_HOST}:{self.port}")

    def command_line(self) -> list[str]:
        """The command behind a process that ends with this one."""
        words = [part.replace(PORT, str(self.port)) for part in self.command]
        if words[0] == "headrace":  # this one, whatever is on PATH
            words = [sys.executable, "-m", "headrace", *words[1:]]
        return [sys.executable, "-m", _CHILD_MODULE, str(os.getpid()), *words]
