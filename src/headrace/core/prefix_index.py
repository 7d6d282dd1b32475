"""Which replica holds which prompt blocks, as far as a gateway can know.

A block is `PROMPT_BLOCK_BYTES` of prompt; its hash covers everything before it, so a prompt is a
chain and equal hashes mean equal prefixes. Per replica a block is

    arriving   its prompt is in flight and has no first token yet
    pinned     a running request uses it (arriving blocks are pinned too)
    idle       prefilled, used by nobody: evicted least recently used first

and it counts as present in each of these states. Three rules keep this close to what the engine
does: room is taken only when the first token shows that the prefill is done, what runs cannot be
evicted, and what running requests decode takes room as well.

Present blocks are closed under prefixes: a request pins its whole chain, and a chain falls idle
deepest block first, so that leaves are evicted before what they hang on. That is why the deepest
hit can be found by binary search. Arriving blocks are the tail of a chain for the same reason.

A prompt comes as its marks: the hash of each of the first `FINE_BLOCKS` blocks, then one for every
`COARSE_BLOCKS` of them. A hash covers all before it, so a mark stands for the blocks since the mark
before. Where blocks are long, each can be a mark: `fine_blocks` is `EVERY_BLOCK` then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeAlias

from headrace.core.model import COARSE_BLOCKS, FINE_BLOCKS

DEFAULT_KV_CAPACITY_TOKENS = 131_072
"""Assumed KV cache of a replica whose engine does not tell."""
MOST_BLOCKS_PER_REPLICA = 262_144
"""Bound on memory, whatever capacity an engine reports: some 16 million tokens."""
EVERY_BLOCK = 1 << 60
"""As `fine_blocks`: more blocks than any prompt has."""

SHRINK = 0.8
"""What a false hit leaves of the capacity that a replica is taken to have: others may use it, or it
told more than it keeps. Not less, for a hit is false after a restart, too."""
GROW = 1.01
"""By how much it grows again with each hit that was true."""
LEAST_SHARE = 1 / 16

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3
_MASK_64 = 0xFFFFFFFFFFFFFFFF


def blocks_covered(marks: int, fine_blocks: int = FINE_BLOCKS) -> int:
    """The number of blocks that the first `marks` marks of a chain stand for."""
    return marks if marks <= fine_blocks else fine_blocks + (marks - fine_blocks) * COARSE_BLOCKS


def mix_identity(marks: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The marks of a prompt under the adapter `name`: an adapter's KV is not its base model's.

    FNV-1a, since the built-in hash of a string differs from process to process.
    """
    salt = _FNV_OFFSET
    for byte in name.encode():
        salt = ((salt ^ byte) * _FNV_PRIME) & _MASK_64
    return tuple([mark ^ salt for mark in marks])


class _ReplicaCache:
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
        "shared",
        "share",
        "shared_blocks",
        "stamp",
        "told_blocks",
    )

    def __init__(self, bit: int, capacity_blocks: float) -> None:
        self.bit = bit
        self.told_blocks = capacity_blocks
        self.share = 1.0  # of what was told, as answers have shown
        self.capacity_blocks = capacity_blocks
        self.pinned: set[int] = set()
        self.shared: dict[int, int] = {}  # mark -> running requests that use it, beyond the first
        self.shared_blocks = 0  # these uses, in blocks
        self.arriving: set[int] = set()
        # mark -> (stamp of its release, blocks it stands for); oldest first
        self.idle: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self.leases = 0
        self.resident_blocks = 0  # idle, or pinned and not arriving
        self.private_blocks = 0.0
        self.stamp = 0
        self.gone = False

    def is_overfull(self) -> bool:
        return self.resident_blocks + self.private_blocks > self.capacity_blocks


class Lease:
    """One request's hold on the marks of its prompt on one replica.

    `hit_stamp` is the age of the deepest hit at the time of the lease (comparable within one
    replica, larger is younger), or None if that mark was in use or nothing was hit.
    """

    __slots__ = ("arrived", "cache", "hit_stamp", "marks", "private_blocks")

    def __init__(self, cache: _ReplicaCache, marks: tuple[int, ...], hit_stamp: int | None) -> None:
        self.cache = cache
        self.marks = marks
        self.hit_stamp = hit_stamp
        self.arrived = False
        self.private_blocks = 0.0


def _released() -> Lease:
    cache = _ReplicaCache(0, 0.0)
    cache.gone = True
    return Lease(cache, (), None)


RELEASED = _released()
"""The lease of a request that has none any more."""


class PrefixIndex:
    """The marks of all replicas; replicas are small integers, sets of them bit masks.

    `fine_blocks` is how many of a prompt's first blocks are each a mark.
    """

    __slots__ = ("_caches", "_fine_blocks", "_holders")

    def __init__(self, fine_blocks: int = FINE_BLOCKS) -> None:
        self._fine_blocks = fine_blocks
        self._holders: dict[int, int] = {}
        self._caches: dict[int, _ReplicaCache] = {}

    def add_replica(self, index: int, capacity_blocks: float) -> None:
        """Begin with an empty cache for a replica; forgets what was known under its index."""
        self.remove_replica(index)
        capacity = min(capacity_blocks, MOST_BLOCKS_PER_REPLICA)
        self._caches[index] = _ReplicaCache(1 << index, capacity)

    def remove_replica(self, index: int) -> None:
        """Forget a replica. Leases on it may still be released; that does nothing."""
        cache = self._caches.pop(index, None)
        if cache is None:
            return
        cache.gone = True
        self._drop(cache, cache.idle)
        self._drop(cache, cache.pinned)

    def set_capacity(self, index: int, capacity_blocks: float) -> None:
        """Take note of how many blocks fit into the KV cache of a replica."""
        cache = self._caches[index]
        cache.told_blocks = min(capacity_blocks, MOST_BLOCKS_PER_REPLICA)
        cache.capacity_blocks = cache.told_blocks * cache.share
        self._evict(cache)

    def lookup(self, marks: tuple[int, ...], replicas: int) -> list[tuple[int, int]]:
        """How much of a prompt each replica holds.

        Args:
            marks: of the prompt's chain.
            replicas: bit mask of the replicas in question.

        Returns:
            (marks held, bit mask of the replicas that hold so many), deepest first; replicas
            that hold nothing are in none.
        """
        found: list[tuple[int, int]] = []
        if not marks:
            return found
        holders_of = self._holders.get
        left = holders_of(marks[0], 0) & replicas
        high = len(marks)
        while left:
            low, deepest = 1, left
            while low < high:
                middle = (low + high + 1) >> 1
                holders = holders_of(marks[middle - 1], 0) & left
                if holders:
                    low, deepest = middle, holders
                else:
                    high = middle - 1
            found.append((low, deepest))
            left &= ~deepest
            high = low - 1
        return found

    def shared_blocks(self, index: int) -> int:
        """Blocks that running requests use on a replica, counted once for each beyond the first."""
        return self._caches[index].shared_blocks

    def marks_in_use(self, index: int, marks: tuple[int, ...]) -> int:
        """Marks of a prompt, from its beginning, that running requests use on a replica."""
        return _marks_in_use(self._caches[index], marks)

    def users(self, index: int, mark: int) -> int:
        """Running requests that hold a mark on a replica."""
        return _users(self._caches[index], mark)

    def lease(self, index: int, marks: tuple[int, ...], hit_marks: int) -> Lease:
        """Pin a prompt on the replica it is sent to; `hit_marks` of it are present there.

        Nothing is evicted yet: the engine still has everything while the prompt waits.
        """
        cache = self._caches[index]
        pinned, hit_stamp = cache.pinned, None
        if hit_marks:
            idle, shared = cache.idle, cache.shared
            deepest = idle.get(marks[hit_marks - 1])
            hit_stamp = deepest[0] if deepest else None
            used = 0
            for mark in marks[:hit_marks]:
                if mark in pinned:
                    shared[mark] = shared.get(mark, 0) + 1
                    used += 1
                else:
                    idle.pop(mark, None)
            cache.shared_blocks += blocks_covered(used, self._fine_blocks)
        if hit_marks < len(marks):
            fresh = marks[hit_marks:]
            cache.arriving.update(fresh)
            holders, bit = self._holders, cache.bit
            holders_of = holders.get
            for mark in fresh:
                holders[mark] = holders_of(mark, 0) | bit
        pinned.update(marks)
        cache.leases += 1
        return Lease(cache, marks, hit_stamp)

    def arrived(self, lease: Lease, private_blocks: float) -> None:
        """The prompt is prefilled: it takes its room, and `private_blocks` beside its chain."""
        cache, marks = lease.cache, lease.marks
        lease.arrived = True
        before = len(cache.arriving)
        cache.arriving.difference_update(marks)
        came = before - len(cache.arriving)
        total = len(marks)
        fine = self._fine_blocks
        cache.resident_blocks += blocks_covered(total, fine) - blocks_covered(total - came, fine)
        self.grow(lease, private_blocks)

    def grow(self, lease: Lease, private_blocks: float) -> None:
        """The request now holds `private_blocks` of decoded tokens."""
        cache = lease.cache
        cache.private_blocks += private_blocks - lease.private_blocks
        lease.private_blocks = private_blocks
        if not cache.gone and cache.is_overfull():
            self._evict(cache)

    def release(self, lease: Lease) -> None:
        """The request is over. Its prompt falls idle if it was prefilled, else it vanishes."""
        cache = lease.cache
        if cache.gone:
            return
        cache.leases -= 1
        # Fractions of blocks need not cancel out in floating point; no request holds none.
        cache.private_blocks -= lease.private_blocks if cache.leases else cache.private_blocks
        marks = lease.marks
        first = _unshare(cache.shared, marks)
        cache.shared_blocks -= blocks_covered(first, self._fine_blocks)
        own = marks[first:]
        cache.pinned.difference_update(own)
        end = len(marks)
        if not lease.arrived:
            before = len(cache.arriving)
            cache.arriving.difference_update(own)
            end -= before - len(cache.arriving)
            self._drop(cache, marks[end:])
        _lay_idle(cache, marks, first, end, self._fine_blocks)
        if cache.is_overfull():
            self._evict(cache)

    def forget_older_than(self, lease: Lease) -> int:
        """The lease's hit proved false, so whatever was idle for longer is gone from there too, and
        less fits in than was believed.

        Returns the number of marks forgotten. The lease's own chain stays: it was prefilled anew.
        """
        cache, stamp = lease.cache, lease.hit_stamp
        if cache.gone or stamp is None:
            return 0
        forgotten: list[int] = []
        for mark, (age, covered) in cache.idle.items():
            if age >= stamp:
                break
            forgotten.append(mark)
            cache.resident_blocks -= covered
        for mark in forgotten:
            del cache.idle[mark]
        self._drop(cache, forgotten)
        kept = (cache.resident_blocks + cache.private_blocks) / max(1.0, cache.told_blocks)
        cache.share = max(LEAST_SHARE, min(cache.share, max(kept, cache.share * SHRINK)))
        cache.capacity_blocks = cache.told_blocks * cache.share
        return len(forgotten)

    def confirm(self, lease: Lease) -> None:
        """The lease's hit was true: the cache may be larger than it was taken to be."""
        cache = lease.cache
        if cache.share < 1.0:
            cache.share = min(1.0, cache.share * GROW)
            cache.capacity_blocks = cache.told_blocks * cache.share

    def _evict(self, cache: _ReplicaCache) -> None:
        """Least recently used idle marks leave until the rest fits, or none is idle."""
        idle, evicted = cache.idle, list[int]()
        oldest, resident = idle.popitem, cache.resident_blocks
        room = cache.capacity_blocks - cache.private_blocks
        while resident > room and idle:
            mark, (_, covered) = oldest(last=False)
            resident -= covered
            evicted.append(mark)
        cache.resident_blocks = resident
        self._drop(cache, evicted)

    def _drop(self, cache: _ReplicaCache, marks: Iterable[int]) -> None:
        """A replica holds these marks no more."""
        holders, others = self._holders, ~cache.bit
        holders_of = holders.get
        for mark in marks:
            left = holders_of(mark, 0) & others
            if left:
                holders[mark] = left
            else:
                holders.pop(mark, None)

    def changed(self, index: int, stored: tuple[int, ...], removed: tuple[int, ...]) -> None:
        """What an engine tells of its cache is not for this index: see `KvEventIndex`."""


class KvEventIndex:
    """The blocks of all replicas as the engines themselves tell, by `KvChanged`.

    It takes the same calls as `PrefixIndex`. What is dispatched and ended here tells only which
    prompts are in flight: their blocks count as present, since the engine will tell of them when it
    has computed them. Every block is a mark. An engine may evict the middle of a chain, so the
    deepest hit is found by walking it.
    """

    __slots__ = ("_caches", "_held", "_holders")

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._held: dict[int, dict[int, None]] = {}
        self._caches: dict[int, _ReplicaCache] = {}

    def add_replica(self, index: int, capacity_blocks: float) -> None:
        """Begin with an empty cache for a replica; forgets what was known under its index."""
        self.remove_replica(index)
        self._held[index] = {}
        self._caches[index] = _ReplicaCache(1 << index, capacity_blocks)

    def remove_replica(self, index: int) -> None:
        """Forget a replica."""
        cache = self._caches.pop(index, None)
        if cache is not None:
            cache.gone = True
            self._drop(index, {**self._held.pop(index), **dict.fromkeys(cache.pinned)})

    def set_capacity(self, index: int, capacity_blocks: float) -> None:
        """The engine tells itself what it evicts."""
        self._caches[index].capacity_blocks = capacity_blocks

    def changed(self, index: int, stored: tuple[int, ...], removed: tuple[int, ...]) -> None:
        """A replica holds the blocks `stored` now and those `removed` no longer."""
        holders, held, bit = self._holders, self._held[index], 1 << index
        pinned = self._caches[index].pinned
        for block in removed:
            held.pop(block, None)
        self._drop(index, [block for block in removed if block not in pinned])
        for block in stored:
            held[block] = None
            holders[block] = holders.get(block, 0) | bit

    def lookup(self, marks: tuple[int, ...], replicas: int) -> list[tuple[int, int]]:
        """How much of a prompt each replica holds without a gap, as `PrefixIndex.lookup` tells."""
        found: list[tuple[int, int]] = []
        holders_of = self._holders.get
        left = replicas if marks else 0
        for depth, mark in enumerate(marks):
            holders = holders_of(mark, 0) & left
            if holders != left:
                if depth:
                    found.append((depth, left & ~holders))
                left = holders
                if not left:
                    break
        if left:
            found.append((len(marks), left))
        found.reverse()
        return found

    def shared_blocks(self, index: int) -> int:
        """Blocks that running requests use on a replica, counted once for each beyond the first."""
        return self._caches[index].shared_blocks

    def marks_in_use(self, index: int, marks: tuple[int, ...]) -> int:
        """Marks of a prompt, from its beginning, that running requests use on a replica."""
        return _marks_in_use(self._caches[index], marks)

    def users(self, index: int, mark: int) -> int:
        """Running requests that hold a mark on a replica."""
        return _users(self._caches[index], mark)

    def lease(self, index: int, marks: tuple[int, ...], hit_marks: int) -> Lease:
        """A prompt goes to a replica: what of it is not there yet will be."""
        cache = self._caches[index]
        used, shared = _marks_in_use(cache, marks), cache.shared
        for mark in marks[:used]:
            shared[mark] = shared.get(mark, 0) + 1
        cache.shared_blocks += used
        holders, bit = self._holders, cache.bit
        for mark in marks[hit_marks:]:
            holders[mark] = holders.get(mark, 0) | bit
        cache.pinned.update(marks)
        return Lease(cache, marks, None)

    def arrived(self, lease: Lease, private_blocks: float) -> None:
        """The prompt is prefilled; the engine tells of its blocks itself."""

    def grow(self, lease: Lease, private_blocks: float) -> None:
        """The request decodes; the engine tells what had to go."""

    def release(self, lease: Lease) -> None:
        """The request is over, and uses its blocks no more."""
        cache = lease.cache
        if cache.gone:
            return
        first = _unshare(cache.shared, lease.marks)
        cache.shared_blocks -= first
        own = lease.marks[first:]
        cache.pinned.difference_update(own)
        index = cache.bit.bit_length() - 1
        held = self._held[index]
        self._drop(index, [mark for mark in own if mark not in held])

    def forget_older_than(self, lease: Lease) -> int:  # noqa: ARG002
        """Nothing here was guessed, so nothing is forgotten."""
        return 0

    def confirm(self, lease: Lease) -> None:
        """See `forget_older_than`."""

    def _drop(self, index: int, blocks: Iterable[int]) -> None:
        holders, others = self._holders, ~(1 << index)
        for block in blocks:
            left = holders.get(block, 0) & others
            if left:
                holders[block] = left
            else:
                holders.pop(block, None)


Index: TypeAlias = PrefixIndex | KvEventIndex


def _users(cache: _ReplicaCache, mark: int) -> int:
    return 1 + cache.shared.get(mark, 0) if mark in cache.pinned else 0


def _marks_in_use(cache: _ReplicaCache, marks: tuple[int, ...]) -> int:
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


def _unshare(shared: dict[int, int], marks: tuple[int, ...]) -> int:
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


def _lay_idle(
    cache: _ReplicaCache, marks: tuple[int, ...], first: int, end: int, fine_blocks: int
) -> None:
    """Marks `first` to `end` of a chain are used by nobody any more; the deepest leaves first."""
    cache.stamp += 1
    idle = cache.idle
    entry = (cache.stamp, COARSE_BLOCKS)
    for mark in reversed(marks[max(first, fine_blocks) : end]):
        idle[mark] = entry
    entry = (cache.stamp, 1)
    for mark in reversed(marks[first : min(end, fine_blocks)]):
        idle[mark] = entry
