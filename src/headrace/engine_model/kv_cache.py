"""A paged KV cache with a prefix cache in it, as vLLM keeps it.

Its capacity is counted in KV blocks (16 tokens). What can be shared are prefix blocks (say 512
tokens, 32 KV blocks), known by id and pinned by the sequences that use them. A prefix block that
nobody pins stays, can be hit, and leaves when its room is needed: least recently used first, and of
blocks given back together the deepest of the chain first. So a block never outlives the blocks
before it, and a prompt's hits are always the first of its blocks.

    capacity = free + evictable (cached, not pinned) + pinned + private of sequences
"""

from __future__ import annotations

from collections import OrderedDict


class KvCache:
    """Counts of KV blocks, and the prefix blocks by id.

    `free_blocks` and `evictable_blocks` are in KV blocks. With `records`, `removed` collects the
    ids of evicted prefix blocks until it is emptied by whoever reads it.
    """

    __slots__ = (
        "_pins",
        "_unpinned",
        "capacity_blocks",
        "evictable_blocks",
        "free_blocks",
        "records",
        "removed",
    )

    def __init__(self, capacity_blocks: int, *, records: bool = False) -> None:
        self.capacity_blocks = capacity_blocks
        self.free_blocks = capacity_blocks
        self.evictable_blocks = 0
        self.records = records
        self.removed: list[int] = []
        self._pins: dict[int, int] = {}
        self._unpinned: OrderedDict[int, int] = OrderedDict()

    def hits(self, blocks: tuple[int, ...]) -> tuple[int, int]:
        """(how many of the first `blocks` are cached, how many of these nobody pins)."""
        pins = self._pins
        hits = unpinned = 0
        for block in blocks:
            count = pins.get(block)
            if count is None:
                break
            hits += 1
            if count == 0:
                unpinned += 1
        return hits, unpinned

    def pin(self, blocks: tuple[int, ...], size: int) -> None:
        """Pin cached blocks of `size` KV blocks each."""
        pins, unpinned = self._pins, self._unpinned
        idle = 0
        for block in blocks:
            count = pins[block]
            if count == 0:
                del unpinned[block]
                idle += 1
            pins[block] = count + 1
        self.evictable_blocks -= idle * size

    def take(self, count: int) -> None:
        """Make `count` KV blocks private, evicting as needed; the caller knows there is room."""
        self.free_blocks -= count
        while self.free_blocks < 0:
            block, size = self._unpinned.popitem(last=False)
            del self._pins[block]
            self.evictable_blocks -= size
            self.free_blocks += size
            if self.records:
                self.removed.append(block)

    def share(self, blocks: tuple[int, ...], size: int) -> None:
        """Make private blocks hit-able under these ids, pinned once.

        An id that is already there (prompts that differ before it, which ids of prefixes rule out)
        is pinned, and the private copy is given back.
        """
        pins = self._pins
        for block in blocks:
            if block not in pins:
                pins[block] = 1
            else:
                self.pin((block,), size)
                self.free_blocks += size

    def release(self, blocks: tuple[int, ...], size: int, private_blocks: int) -> None:
        """Unpin prefix blocks of `size` KV blocks each, and free private KV blocks."""
        self.free_blocks += private_blocks
        pins, unpinned = self._pins, self._unpinned
        idle = 0
        for block in reversed(blocks):
            pins[block] = count = pins[block] - 1
            if count == 0:
                unpinned[block] = size
                idle += 1
        self.evictable_blocks += idle * size

    @property
    def available_blocks(self) -> int:
        """KV blocks that can be had, by eviction where needed."""
        return self.free_blocks + self.evictable_blocks

    @property
    def cached(self) -> list[int]:
        """Ids of all prefix blocks in the cache, pinned or not."""
        return list(self._pins)
