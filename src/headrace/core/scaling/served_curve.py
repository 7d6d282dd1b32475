"""How full replicas may really be: the reckoned capacity, corrected by what was missed.

    use = load / what the ready replicas carry, as reckoned        share = missed by load, measured
    usable = the use at which the share reaches what the target allows
    corrected capacity = reckoned * usable

Shares are kept by bins of use and fade over days; a bin of which little is known says what the
reckoning says: little below 1, soon all above. A share never falls with use, so a bin is at least
what the ones below it are. Minutes in which replicas came or went, and those behind a shortage,
whose backlog they bear, tell nothing.
"""

from __future__ import annotations

from typing import Any

FIRST_USE, LAST_USE, BIN = 0.5, 1.5, 0.05
BINS = round((LAST_USE - FIRST_USE) / BIN)
KEEP = 0.5 ** (1.0 / (3.0 * 1440.0))
PRIOR_MINUTES, OVER_MINUTES = 60.0, 10.0
"""Minutes that what is believed of a bin counts, below and above full use."""
MOST_OF_A_MINUTE = 5.0
"""Times what is allowed: one minute says no more, whatever went wrong in it."""
OVER_SLOPE = 5.0
"""Share missed by use beyond 1, before it is known: at 1.2 all."""
LOWEST, HIGHEST = 0.7, 1.25
"""The reckoning is not believed to be off by more."""
BACKLOG_MINUTES = 3


class ServedCurve:
    """The curve of one pool. `usable` is 1 until something else is learned."""

    __slots__ = ("_backlog", "_known", "_missed", "_ready", "usable")

    def __init__(self) -> None:
        self._known = [0.0] * BINS
        self._missed = [0.0] * BINS
        self._ready = -1
        self._backlog = 0
        self.usable = 1.0

    def observe(self, use: float, missed_share: float, ready: int, allowed: float) -> None:
        """Take a minute; `use` is by the uncorrected reckoning, `allowed` the share that may be
        missed.
        """
        is_steady = ready == self._ready and (use > 1.0 or self._backlog == 0)
        self._ready = ready
        self._backlog = BACKLOG_MINUTES if use > 1.0 else max(self._backlog - 1, 0)
        if not is_steady or not FIRST_USE <= use < LAST_USE:
            return
        self._known = [KEEP * each for each in self._known]
        self._missed = [KEEP * each for each in self._missed]
        place = min(int((use - FIRST_USE) / BIN), BINS - 1)
        self._known[place] += 1.0
        self._missed[place] += min(missed_share, MOST_OF_A_MINUTE * allowed)
        self.usable = min(max(self._crossing(allowed), LOWEST), HIGHEST)

    def state(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {name: getattr(self, name) for name in self.__slots__}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` said."""
        for name in self.__slots__:
            setattr(self, name, state[name])

    def _crossing(self, allowed: float) -> float:
        """The use at which the share reaches `allowed`, between the middles of two bins."""
        before_use, before = FIRST_USE, 0.0
        for place in range(BINS):
            use = FIRST_USE + (place + 0.5) * BIN
            prior, minutes = 0.5 * allowed, PRIOR_MINUTES
            if use > 1.0:
                prior, minutes = min(OVER_SLOPE * (use - 1.0), 1.0), OVER_MINUTES
            share = self._missed[place] + minutes * prior
            share = max(share / (self._known[place] + minutes), before)
            if share > allowed:
                # Below one bin's reach a share of everything would leave a hair of it usable.
                part = (allowed - before) / max(min(share, 2.0 * allowed) - before, 1e-9)
                return before_use + part * (use - before_use)
            before_use, before = use, share
        return LAST_USE
