"""What last went wrong with each replica, for whoever asks why it is not ready."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CHARACTERS = 500
"""Kept of one reason: engines' own words may be long."""
MINOR_AFTER_S = 60.0
"""A minor trouble may be met every second: for so long it does not displace another."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One reason in words, when it was last met by the telemetry's clock, and whether the replica
    serves on with it, as it does without metrics.
    """

    reason: str
    at_s: float
    is_minor: bool = False


class Troubles:
    """The last trouble of each replica, kept after it has passed."""

    def __init__(self) -> None:
        self._last: dict[str, Trouble] = {}

    def note(self, replica: str, reason: str, now: float, *, minor: bool = False) -> None:
        """This was wrong just now."""
        last = self._last.get(replica)
        if minor and last is not None and not last.is_minor and now - last.at_s < MINOR_AFTER_S:
            return
        self._last[replica] = Trouble(reason[:MAX_CHARACTERS], now, minor)

    def last(self, replica: str) -> Trouble | None:
        """What went wrong last, if anything ever did."""
        return self._last.get(replica)

    def forget(self, replica: str) -> None:
        """The replica left the fleet."""
        self._last.pop(replica, None)
