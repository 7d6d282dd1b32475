"""Which replica holds which prompt blocks, as far as a gateway can know.

A block is `PROMPT_BLOCK_BYTES` of prompt; its hash covers everything before it, so a prompt is a
chain and equal hashes mean equal prefixes. Per replica a block is

    arriving   its prompt is in flight and has no first token yet
    in use     by a running request (arriving blocks are in use too)
    idle       prefilled, used by nobody: evicted least recently used first

and it counts as present in each of these states. Three rules keep this close to what the engine
does: room is taken only when the first token shows that the prefill is done, what runs cannot be
evicted, and what running requests decode takes room as well.

Present blocks are closed under prefixes: a request uses its whole chain, and a chain falls idle
deepest block first, so that leaves are evicted before what they hang on. That is why the deepest
hit can be found by binary search. Arriving blocks are the tail of a chain for the same reason.

A prompt comes as its marks: the hash of each of the first `FINE_BLOCKS` blocks, then one for every
`COARSE_BLOCKS` of them. A hash covers all before it, so a mark stands for the blocks since the mark
before. Where blocks are long, each can be a mark: `fine_blocks` is `EVERY_BLOCK` then.
"""

from __future__ import annotations

from typing import Final

from headrace.core import replica_cache
from headrace.core.model import COARSE_BLOCKS, FINE_BLOCKS
from headrace.core.prompt_marks import Mark
from headrace.core.replica_cache import Kept, Lease, ReplicaCache

DEFAULT_KV_CAPACITY_TOKENS: Final = 131_072
"""Assumed KV cache of a replica whose engine does not tell."""
MOST_BLOCKS_PER_REPLICA: Final = 262_144
"""Bound on memory, whatever capacity an engine reports: some 16 million tokens."""
SHRINK: Final = 0.8
"""What a false hit leaves of the capacity that a replica is taken to have: others may use it, or it
told more than it keeps. Not less, for a hit is false after a restart, too."""
GROW: Final = 1.01
"""By how much it grows again with each hit that was true."""
LEAST_SHARE: Final = 1 / 16


class PrefixIndex:
    """The marks of all replicas; replicas are small integers, sets of them bit masks.

    `fine_blocks` is how many of a prompt's first blocks are each a mark.
    """

    __slots__ = ("_caches", "_fine_blocks", "_holders")

    def __init__(self, fine_blocks: int = FINE_BLOCKS) -> None:
        self._fine_blocks = fine_blocks
        self._holders: dict[Mark, int] = {}
        self._caches: dict[int, ReplicaCache] = {}

    def add_replica(self, index: int, capacity_blocks: float) -> None:
        """Begin with an empty cache for a replica; forgets what was known under its index."""
        self.remove_replica(index)
        capacity = min(capacity_blocks, MOST_BLOCKS_PER_REPLICA)
        self._caches[index] = ReplicaCache(1 << index, capacity)

    def remove_replica(self, index: int) -> None:
        """Forget a replica. Leases on it may still be released; that does nothing."""
        cache = self._caches.pop(index, None)
        if cache is None:
            return
        cache.gone = True
        for kept in tuple(cache.kept.values()):
            self._drop(cache, kept)

    def set_capacity(self, index: int, capacity_blocks: float) -> None:
        """Take note of how many blocks fit into the KV cache of a replica."""
        cache = self._caches[index]
        cache.told_blocks = min(capacity_blocks, MOST_BLOCKS_PER_REPLICA)
        cache.capacity_blocks = cache.told_blocks * cache.share
        if cache.resident_blocks > cache.capacity_blocks - cache.private_blocks:
            self._evict(cache)

    def lookup(self, marks: tuple[Mark, ...], replicas: int) -> list[tuple[int, int]]:
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
        holders_of = self._holders
        left = holders_of.get(marks[0], 0) & replicas
        high = len(marks)
        while left:
            low, deepest = 1, left
            while low < high:
                middle = (low + high + 1) >> 1
                holders = holders_of.get(marks[middle - 1], 0) & left
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

    def marks_in_use(self, index: int, marks: tuple[Mark, ...]) -> int:
        """Marks of a prompt, from its beginning, that running requests use on a replica."""
        return replica_cache.marks_in_use(self._caches[index], marks)

    def users(self, index: int, mark: Mark) -> int:
        """Running requests that hold a mark on a replica."""
        return replica_cache.users(self._caches[index], mark)

    def last_copies(self, index: int, blocks: float) -> int:
        """Of what must go from a replica for `blocks` more, the blocks that no other one holds."""
        cache, holders = self._caches[index], self._holders
        over = cache.resident_blocks + cache.private_blocks + blocks - cache.capacity_blocks
        last = 0
        idle, bit = cache.idle, cache.bit
        kept, ends = idle.oldest, idle.ends
        while kept is not None and kept is not ends and over > 0.0:
            covered = kept.covered
            over -= covered
            if holders[kept.mark] == bit:
                last += covered
            kept = kept.younger
        return last

    def lease(self, index: int, marks: tuple[Mark, ...]) -> Lease:
        """A prompt goes to a replica: what of it is not there yet will be.

        Nothing is evicted yet: the engine still has everything while the prompt waits.
        """
        cache = self._caches[index]
        holders, bit, idle, there = self._holders, cache.bit, cache.idle, cache.kept
        leased: list[Kept] = []
        hit_stamp: int | None = None
        shared = 0
        for mark in marks:
            kept = there.get(mark)
            if kept is None:
                covered = 1 if len(leased) < self._fine_blocks else COARSE_BLOCKS
                kept = there[mark] = Kept(mark, covered)
                holders[mark] = holders.get(mark, 0) | bit
            elif kept.users:
                shared += kept.covered
                hit_stamp = None
            else:
                idle.take_out(kept)
                hit_stamp = kept.stamp
            kept.users += 1
            leased.append(kept)
        cache.shared_blocks += shared
        cache.leases += 1
        return Lease(cache, leased, hit_stamp)

    def arrived(self, lease: Lease, private_blocks: float) -> None:
        """The prompt is prefilled: it takes its room, and `private_blocks` beside its chain."""
        cache = lease.cache
        for kept in reversed(lease.kept):
            if not kept.arriving:
                break  # what arrives of a chain is its end
            kept.arriving = False
            cache.resident_blocks += kept.covered
        self.grow(lease, private_blocks)

    def grow(self, lease: Lease, private_blocks: float) -> None:
        """The request now holds `private_blocks` of decoded tokens."""
        cache = lease.cache
        cache.private_blocks += private_blocks - lease.private_blocks
        lease.private_blocks = private_blocks
        over = cache.resident_blocks + cache.private_blocks > cache.capacity_blocks
        if over and not cache.gone:
            self._evict(cache)

    def release(self, lease: Lease) -> None:
        """The request is over. Its prompt falls idle if it was prefilled, else it vanishes."""
        cache = lease.cache
        if cache.gone:
            return
        cache.leases -= 1
        # Fractions of blocks need not cancel out in floating point; no request holds none.
        cache.private_blocks -= lease.private_blocks if cache.leases else cache.private_blocks
        shared = 0
        unused: list[Kept] = []
        for kept in reversed(lease.kept):
            kept.users -= 1
            if kept.users:
                shared += kept.covered
            elif kept.arriving:
                self._drop(cache, kept)
            else:
                unused.append(kept)
        cache.shared_blocks -= shared
        cache.idle.add(unused)
        if cache.resident_blocks + cache.private_blocks > cache.capacity_blocks:
            self._evict(cache)

    def forget_older_than(self, lease: Lease) -> int:
        """The lease's hit proved false, so whatever was idle for longer is gone from there too, and
        less fits in than was believed.

        Returns the number of marks forgotten. The lease's own chain stays: it was prefilled anew.
        """
        cache, stamp = lease.cache, lease.hit_stamp
        if cache.gone or stamp is None:
            return 0
        forgotten = 0
        oldest = cache.idle.oldest
        while oldest is not None and oldest.stamp < stamp:
            cache.resident_blocks -= oldest.covered
            self._drop(cache, oldest)
            forgotten += 1
            oldest = cache.idle.without_oldest()
        full = (cache.resident_blocks + cache.private_blocks) / max(1.0, cache.told_blocks)
        cache.share = max(LEAST_SHARE, min(cache.share, max(full, cache.share * SHRINK)))
        cache.capacity_blocks = cache.told_blocks * cache.share
        return forgotten

    def confirm(self, lease: Lease) -> None:
        """The lease's hit was true: the cache may be larger than it was taken to be."""
        cache = lease.cache
        if cache.share < 1.0:
            cache.share = min(1.0, cache.share * GROW)
            cache.capacity_blocks = cache.told_blocks * cache.share

    def _evict(self, cache: ReplicaCache) -> None:
        """Least recently used idle marks leave until the rest fits, or none is idle."""
        room, idle = cache.capacity_blocks - cache.private_blocks, cache.idle
        oldest = idle.oldest
        while oldest is not None and cache.resident_blocks > room:
            cache.resident_blocks -= oldest.covered
            self._drop(cache, oldest)
            oldest = idle.without_oldest()

    def _drop(self, cache: ReplicaCache, kept: Kept) -> None:
        """A replica holds this mark no more."""
        del cache.kept[kept.mark]
        holders = self._holders
        left = holders[kept.mark] & ~cache.bit
        if left:
            holders[kept.mark] = left
        else:
            del holders[kept.mark]

    def changed(self, index: int, stored: tuple[Mark, ...], removed: tuple[Mark, ...]) -> None:
        """What an engine tells of its cache is not for this index: see `KvEventIndex`."""
