"""A consistent hash ring: which replica a key belongs to, and which come next.

Every replica stands on the ring at `POINTS` places that depend on its name alone. A key belongs to
the first place at or after it. When one of N replicas leaves, only its keys move, about 1/N of
them, and they spread over all others (Karger et al., "Consistent Hashing and Random Trees", 1997).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

import xxhash

POINTS = 256
"""Places per replica. The shares of replicas then differ by about 1/sqrt(256), 6 %."""


class HashRing:
    """Replicas by name on a ring of 64 bits."""

    __slots__ = ("_names", "_owners", "_points")

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._points: list[int] = []
        self._owners: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._names)

    def add(self, names: Iterable[str]) -> None:
        """Put on the ring those that are not on it yet."""
        known = len(self._points)
        for name in names:
            if name not in self._names:
                self._names.add(name)
                points = _points_of(name)
                self._owners.update(dict.fromkeys(points, name))
                self._points += points
        if len(self._points) > known:
            # Merges what was sorted before with what is new.
            self._points.sort()

    def remove(self, name: str) -> None:
        """Take a replica off the ring; a no-op if it is not on it."""
        if name not in self._names:
            return
        self._names.remove(name)
        self._owners = {point: owner for point, owner in self._owners.items() if owner != name}
        self._points = [point for point in self._points if point in self._owners]

    def walk(self, key: int) -> Iterator[str]:
        """Every replica once, in the order in which they are met from the key on.

        `key` is any integer of 64 bits; it is hashed, so it need not be spread evenly.
        """
        points, owners = self._points, self._owners
        count = len(points)
        start = bisect_left(points, xxhash.xxh3_64_intdigest(key.to_bytes(8, "little")))
        met: set[str] = set()
        for step in range(start, start + count):
            name = owners[points[step - count if step >= count else step]]
            if name not in met:
                met.add(name)
                yield name
                if len(met) == len(self._names):
                    return


def _points_of(name: str) -> list[int]:
    # Not by the hash's seed: under different seeds short names of the same length collide.
    return [xxhash.xxh3_64_intdigest(f"{name}#{number}".encode()) for number in range(POINTS)]
