"""What one replica is taken to hold, and one request's hold on it: the books of both indices."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from headrace.core.prompt_marks import Mark


class ReplicaCache:
    """The marks of one replica and the room, in blocks, that they and running requests take."""

    __slots__ = (
        "arriving",
        "bit",
        "capacity_blocks",
        "gone",
        "idle",
        "leases",
        "pinned",
        "private_blocks",
        "resident_blocks",
        "share",
        "shared",
        "shared_blocks",
        "stamp",
        "told_blocks",
    )

    def __init__(self, bit: int, capacity_blocks: float) -> None:
        self.bit = bit
        self.told_blocks = capacity_blocks
        self.share = 1.0  # of what was told, as answers have shown
        self.capacity_blocks = capacity_blocks
        self.pinned: set[Mark] = set()
        self.shared: dict[Mark, int] = {}  # mark -> running requests that use it, beyond the first
        self.shared_blocks = 0  # these uses, in blocks
        self.arriving: set[Mark] = set()
        self.idle: OrderedDict[Mark, Layer] = OrderedDict()  # oldest first
        self.leases = 0
        self.resident_blocks = 0  # idle, or pinned and not arriving
        self.private_blocks = 0.0
        self.stamp = 0
        self.gone = False


class Layer:
    """Idle marks that one release left: each stands for `covered` blocks. A later release has the
    larger `stamp`.
    """

    __slots__ = ("covered", "stamp")

    def __init__(self, stamp: int, covered: int) -> None:
        self.stamp = stamp
        self.covered = covered


class Lease:
    """One request's hold on the marks of its prompt on one replica.

    `hit_stamp` is the age of the deepest hit at the time of the lease (comparable within one
    replica, larger is younger), or None if that mark was in use or nothing was hit.
    """

    __slots__ = ("arrived", "cache", "hit_stamp", "marks", "private_blocks")

    def __init__(self, cache: ReplicaCache, marks: tuple[Mark, ...], hit_stamp: int | None) -> None:
        self.cache = cache
        self.marks = marks
        self.hit_stamp = hit_stamp
        self.arrived = False
        self.private_blocks = 0.0


def _released() -> Lease:
    cache = ReplicaCache(0, 0.0)
    cache.gone = True
    return Lease(cache, (), None)


RELEASED: Final = _released()
"""The lease of a request that has none any more."""


def users(cache: ReplicaCache, mark: Mark) -> int:
    """Running requests that hold a mark."""
    return 1 + cache.shared.get(mark, 0) if mark in cache.pinned else 0


def marks_in_use(cache: ReplicaCache, marks: tuple[Mark, ...]) -> int:
    """What is pinned of a chain is its beginning."""
    pinned = cache.pinned
    if not marks or marks[0] not in pinned:
        return 0
    low, high = 1, len(marks)
    while low < high:
        middle = (low + high + 1) >> 1
        if marks[middle - 1] in pinned:
            low = middle
        else:
            high = middle - 1
    return low


def unshare(shared: dict[Mark, int], marks: tuple[Mark, ...]) -> int:
    """End one request's use of the marks that others use as well; how many these are.

    What is shared of a chain is its beginning.
    """
    if not shared:
        return 0
    for position, mark in enumerate(marks):
        others = shared.get(mark, 0)
        if others > 1:
            shared[mark] = others - 1
        elif others:
            del shared[mark]
        else:
            return position
    return len(marks)
