"""Which replica holds which blocks, as the engines themselves tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from headrace.core import replica_cache
from headrace.core.prefix_index import PrefixIndex
from headrace.core.prompt_marks import Mark
from headrace.core.replica_cache import Kept, Lease, ReplicaCache


class KvEventIndex:
    """The blocks of all replicas as the engines themselves tell, by `KvChanged`.

    It takes the same calls as `PrefixIndex`. What is dispatched and ended here tells only which
    prompts are in flight: their blocks count as present, since the engine will tell of them when it
    has computed them. Every block is a mark. An engine may evict the middle of a chain, so the
    deepest hit is found by walking it.
    """

    __slots__ = ("_caches", "_held", "_holders")

    def __init__(self) -> None:
        self._holders: dict[Mark, int] = {}
        self._held: dict[int, dict[Mark, None]] = {}
        self._caches: dict[int, ReplicaCache] = {}

    def add_replica(self, index: int, capacity_blocks: float) -> None:
        """Begin with an empty cache for a replica; forgets what was known under its index."""
        self.remove_replica(index)
        self._held[index] = {}
        self._caches[index] = ReplicaCache(1 << index, capacity_blocks)

    def remove_replica(self, index: int) -> None:
        """Forget a replica."""
        cache = self._caches.pop(index, None)
        if cache is not None:
            cache.gone = True
            self._drop(index, {**self._held.pop(index), **dict.fromkeys(cache.kept)})

    def set_capacity(self, index: int, capacity_blocks: float) -> None:
        """The engine tells itself what it evicts."""
        self._caches[index].capacity_blocks = capacity_blocks

    def changed(self, index: int, stored: tuple[Mark, ...], removed: tuple[Mark, ...]) -> None:
        """A replica holds the blocks `stored` now and those `removed` no longer."""
        holders, held, bit = self._holders, self._held[index], 1 << index
        used = self._caches[index].kept
        for block in removed:
            held.pop(block, None)
        self._drop(index, [block for block in removed if block not in used])
        for block in stored:
            held[block] = None
            holders[block] = holders.get(block, 0) | bit

    def lookup(self, marks: tuple[Mark, ...], replicas: int) -> list[tuple[int, int]]:
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

    def marks_in_use(self, index: int, marks: tuple[Mark, ...]) -> int:
        """Marks of a prompt, from its beginning, that running requests use on a replica."""
        return replica_cache.marks_in_use(self._caches[index], marks)

    def users(self, index: int, mark: Mark) -> int:
        """Running requests that hold a mark on a replica."""
        return replica_cache.users(self._caches[index], mark)

    def last_copies(self, index: int, blocks: float) -> int:  # noqa: ARG002 - as `forget_older_than`
        """Engines do not tell what they will evict."""
        return 0

    def lease(self, index: int, marks: tuple[Mark, ...]) -> Lease:
        """A prompt goes to a replica: what of it is not there yet will be."""
        cache = self._caches[index]
        holders, bit = self._holders, cache.bit
        leased: list[Kept] = []
        for mark in marks:
            kept = cache.kept.get(mark)
            if kept is None:
                kept = cache.kept[mark] = Kept(mark, 1)
                holders[mark] = holders.get(mark, 0) | bit
            else:
                cache.shared_blocks += 1
            kept.users += 1
            leased.append(kept)
        return Lease(cache, leased, None)

    def arrived(self, lease: Lease, private_blocks: float) -> None:
        """The prompt is prefilled; the engine tells of its blocks itself."""

    def grow(self, lease: Lease, private_blocks: float) -> None:
        """The request decodes; the engine tells what had to go."""

    def release(self, lease: Lease) -> None:
        """The request is over, and uses its blocks no more."""
        cache = lease.cache
        if cache.gone:
            return
        unused: list[Mark] = []
        for kept in lease.kept:
            kept.users -= 1
            if kept.users:
                cache.shared_blocks -= 1
            else:
                del cache.kept[kept.mark]
                unused.append(kept.mark)
        index = cache.bit.bit_length() - 1
        held = self._held[index]
        self._drop(index, [mark for mark in unused if mark not in held])

    def forget_older_than(self, lease: Lease) -> int:  # noqa: ARG002 - the calls of both indices
        """Nothing here was guessed, so nothing is forgotten."""
        return 0

    def confirm(self, lease: Lease) -> None:
        """See `forget_older_than`."""

    def _drop(self, index: int, blocks: Iterable[Mark]) -> None:
        holders, others = self._holders, ~(1 << index)
        for block in blocks:
            left = holders.get(block, 0) & others
            if left:
                holders[block] = left
            else:
                holders.pop(block, None)


Index: TypeAlias = PrefixIndex | KvEventIndex
"""Either of them."""
