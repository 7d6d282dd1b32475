"""Prefills whose end nobody sees, since the answer is not streamed."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

# A compiled module looks an imported name up at each call.
_push: Final = heappush
_pop: Final = heappop


class SilentPrefills:
    """Attempts that are not streamed, by the time at which their prefill should be done; it is true
    while there are any, also those that have ended since.
    """

    __slots__ = ("_expected",)

    def __init__(self) -> None:
        self._expected: list[tuple[float, int]] = []  # a heap

    def __bool__(self) -> bool:
        return bool(self._expected)

    def expect(self, done_s: float, attempt: int) -> None:
        """The attempt's prefill should be done by then."""
        _push(self._expected, (done_s, attempt))

    def next_done(self, now: float) -> int | None:
        """Take out the first attempt whose prefill should be done; None if there is none yet."""
        expected = self._expected
        return _pop(expected)[1] if expected and expected[0][0] <= now else None
