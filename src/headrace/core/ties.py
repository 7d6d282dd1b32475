"""Chance for policies that need it and have no random source of their own.

Splitmix64 over a counter (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
2014): the n-th number depends on n alone, so a replay and a second run draw the same.
"""

from __future__ import annotations

from typing import Final

_MASK_64: Final = 0xFFFFFFFFFFFFFFFF
_GAMMA: Final = 0x9E3779B97F4A7C15


class Ties:
    """Numbers drawn one after the other, the same for every instance."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = 0

    def ratio(self) -> float:
        """The next number, evenly spread from 0 to below 1."""
        self._state = (self._state + _GAMMA) & _MASK_64
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK_64
        return ((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """The next whole number from 0 to below `count`."""
        return int(self.ratio() * count)
