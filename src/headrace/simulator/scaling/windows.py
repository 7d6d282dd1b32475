"""The highest and the lowest of the values around each place of a series."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def highest(values: Sequence[Number], first: int, last: int) -> list[Number]:
    """Of each place, the highest value from `first` to `last` places after it."""
    count = len(values)
    found: list[Number] = []
    inside: deque[int] = deque()
    arriving = 0
    for place in range(count):
        while arriving < count and arriving <= place + last:
            while inside and values[inside[-1]] <= values[arriving]:
                inside.pop()
            inside.append(arriving)
            arriving += 1
        while inside and inside[0] < place + first:
            inside.popleft()
        found.append(values[inside[0]])
    return found


def lowest(values: Sequence[Number], first: int, last: int) -> list[Number]:
    """Of each place, the lowest value from `first` to `last` places after it."""
    return [-value for value in highest([-value for value in values], first, last)]
