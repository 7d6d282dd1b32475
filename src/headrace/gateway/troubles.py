"""What last went wrong with each replica, for whoever asks why it is not ready."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CHARACTERS = 500
"""Kept of one reason: engines' own words may be long."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason in words, and when it was last met by the telemetry's clock."""

    reason: str
    at_s: float


class Troubles:
    """The last trouble of each replica, kept after it has passed."""

    def __init__(self) -> None:
        self._last: dict[str, Trouble] = {}

    def note(self, replica: str, reason: str, now: float) -> None:
        """This was wrong just now."""
        self._last[replica] = Trouble(reason[:MAX_CHARACTERS], now)

    def last(self, replica: str) -> Trouble | None:
        """What went wrong last, if anything ever did."""
        return self._last.get(replica)

    def forget(self, replica: str) -> None:
        """The replica left the fleet."""
        self._last.pop(replica, None)
