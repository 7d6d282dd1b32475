"""How the processes of a local fleet are kept alive, and what a fleet of one kind must say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headrace.edges.fleets.replica_process import Launch


class LocalFleetError(RuntimeError):
    """The fleet cannot run. The message names the cause and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAlive:
    """How local replicas are started, restarted and ended."""

    ready_timeout_s: float = 120.0
    """From the start of a process until it has loaded its model; then it is killed."""
    first_restart_delay_s: float = 0.5
    """Before the first restart of a replica that died; doubles with each death."""
    max_restart_delay_s: float = 30.0
    """The longest such delay."""
    healthy_after_s: float = 60.0
    """A replica that was ready for so long starts over at `first_restart_delay_s`."""
    max_failed_starts: int = 3
    """Failed starts in a row after which a replica that was never ready is given up."""
    silent_timeout_s: float = 120.0
    """A replica that was ready and does not answer its health for so long is ended and started
    again. After three checks in a row, some seconds, it gets no requests."""
    stop_grace_s: float = 5.0
    """From SIGTERM to SIGKILL."""
    log_dir: Path | None = None
    """Where replicas log; None means `logs` in the cache folder."""
    max_log_bytes: int = 4 * 1024 * 1024
    """A log that has grown longer is emptied, also while its replica runs."""


class LocalReplicas(Protocol):
    """What runs on this machine: a `KeepAlive` that knows how one replica is started."""

    @property
    def keep(self) -> KeepAlive:
        """How they are kept alive."""
        ...

    def check(self) -> None:
        """Raises LocalFleetError if none could ever start."""
        ...

    def launch(self) -> Launch:
        """How the next one is started."""
        ...


class RestartDelay:
    """Exponential back-off between the deaths of one replica and its restarts."""

    def __init__(self, settings: KeepAlive) -> None:
        self._settings = settings
        self._next_s = settings.first_restart_delay_s

    def after(self, ready_s: float) -> float:
        """Seconds to wait after a replica that was ready for `ready_s` seconds."""
        if ready_s >= self._settings.healthy_after_s:
            self._next_s = self._settings.first_restart_delay_s
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, self._settings.max_restart_delay_s)
        return delay_s
