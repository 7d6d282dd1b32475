"""What one replica is taken to hold, and one request's hold on it: the books of both indices."""

from __future__ import annotations

from typing import Final

from headrace.core.prompt_marks import Mark


class Kept:
    """One mark on one replica, for which it keeps `covered` blocks.

    `users` are the running requests that need it; nobody needs what is idle. It is `arriving` while
    the prompt that brings it has no first token. `stamp` tells idle marks apart by age: what falls
    idle later has a larger one.
    """

    __slots__ = ("arriving", "covered", "mark", "older", "stamp", "users", "younger")

    def __init__(self, mark: Mark, covered: int) -> None:
        self.mark = mark
        self.covered = covered
        self.users = 0
        self.arriving = True
        self.stamp = 0
        # Its neighbours while it is idle.
        self.older: Kept | None = None
        self.younger: Kept | None = None


class Idle:
    """Marks that nobody needs, in the order in which they fell idle.

    A chain of links, of which a request that needs a mark again takes it out at no more cost than
    four assignments: an `OrderedDict` would look each mark up twice.
    """

    __slots__ = ("_stamp", "ends")

    def __init__(self) -> None:
        self.ends = Kept("", 0)
        """Stands behind the youngest, and before the oldest."""
        self.ends.older = self.ends.younger = self.ends
        self._stamp = 0

    @property
    def oldest(self) -> Kept | None:
        """What fell idle first; None where nothing is."""
        oldest = self.ends.younger
        return None if oldest is self.ends else oldest

    def add(self, marks: list[Kept]) -> None:
        """Nobody needs these any more, the first of them the least."""
        self._stamp = stamp = self._stamp + 1
        ends = self.ends
        youngest = ends.older
        assert youngest is not None
        for kept in marks:
            kept.stamp = stamp
            kept.older = youngest
            youngest.younger = kept
            youngest = kept
        youngest.younger = ends
        ends.older = youngest

    def without_oldest(self) -> Kept | None:
        """The oldest leaves the replica; what is the oldest then."""
        ends = self.ends
        oldest = ends.younger
        assert oldest is not None
        younger = oldest.younger
        assert younger is not None
        ends.younger, younger.older = younger, ends
        oldest.older = oldest.younger = None
        return None if younger is ends else younger

    def take_out(self, kept: Kept) -> None:
        """It is needed again."""
        older, younger = kept.older, kept.younger
        assert older is not None
        assert younger is not None
        older.younger, younger.older = younger, older
        kept.older = kept.younger = None


class ReplicaCache:
    """The marks of one replica and the room, in blocks, that they and running requests take."""

    __slots__ = (
        "bit",
        "capacity_blocks",
        "gone",
        "idle",
        "kept",
        "leases",
        "private_blocks",
        "resident_blocks",
        "share",
        "shared_blocks",
        "told_blocks",
    )

    def __init__(self, bit: int, capacity_blocks: float) -> None:
        self.bit = bit
        self.told_blocks = capacity_blocks
        self.share = 1.0  # of what was told, as answers have shown
        self.capacity_blocks = capacity_blocks
        self.kept: dict[Mark, Kept] = {}
        self.idle = Idle()
        self.shared_blocks = 0  # for each user of a mark beyond the first
        self.leases = 0
        self.resident_blocks = 0  # not arriving
        self.private_blocks = 0.0
        self.gone = False


class Lease:
    """One request's hold on the marks of its prompt on one replica.

    `hit_stamp` is the age of the deepest hit at the time of the lease (comparable within one
    replica, larger is younger), or None if that mark was in use or nothing was hit.
    """

    __slots__ = ("cache", "hit_stamp", "kept", "private_blocks")

    def __init__(self, cache: ReplicaCache, kept: list[Kept], hit_stamp: int | None) -> None:
        self.cache = cache
        self.kept = kept
        self.hit_stamp = hit_stamp
        self.private_blocks = 0.0


def _released() -> Lease:
    cache = ReplicaCache(0, 0.0)
    cache.gone = True
    return Lease(cache, [], None)


RELEASED: Final = _released()
"""The lease of a request that has none any more."""


def users(cache: ReplicaCache, mark: Mark) -> int:
    """Running requests that hold a mark."""
    kept = cache.kept.get(mark)
    return 0 if kept is None else kept.users


def marks_in_use(cache: ReplicaCache, marks: tuple[Mark, ...]) -> int:
    """What is in use of a chain is its beginning."""
    low, high = 0, len(marks)
    while low < high:
        middle = (low + high + 1) >> 1
        if users(cache, marks[middle - 1]):
            low = middle
        else:
            high = middle - 1
    return low
