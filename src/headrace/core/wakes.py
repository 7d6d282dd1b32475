"""Times at which the core has asked to be woken."""

from __future__ import annotations

from typing import Final

from headrace.core.events import Effect, WakeAt

EARLY_S: Final = 0.002
"""A timer may go off so much too early: uvloop's count whole milliseconds from the last whole one,
which makes 1.5 ms. One that came earlier than this would be taken for one still to come."""


class Wakes:
    """Wakes that were asked for and are still to come; it is true while there are any.

    Each of them is kept, also those behind the next one: to ask anew for a time that is coming
    anyway would double what is asked for then in turn, and so on without end.
    """

    __slots__ = ("_coming",)

    def __init__(self) -> None:
        self._coming: list[float] = []  # the soonest first

    def __bool__(self) -> bool:
        return bool(self._coming)

    def by(self, at_s: float) -> list[Effect]:
        """Ask for a wake at this time, unless one is coming by then."""
        if self._coming and self._coming[0] <= at_s:
            return []
        self._coming.insert(0, at_s)
        return [WakeAt(at_s)]

    def passed(self, now: float) -> None:
        """It is this late."""
        while self._coming and self._coming[0] <= now + EARLY_S:
            del self._coming[0]
