"""The prefix index against a model that keeps everything in lists and counts it anew each time."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.core.model import FINE_BLOCKS
from headrace.core.prefix_index import PrefixIndex
from headrace.core.prompt_marks import blocks_covered
from headrace.core.replica_cache import Lease
from tests.unit.core.marks import marks_of

REPLICAS = 3
BRANCHES = 3
CHUNK_BLOCKS = 9
"""Prompts are paths in a tree whose edges are this many blocks: every third is beyond the fine
marks."""


def blocks_of(path: tuple[int, ...]) -> tuple[int, ...]:
    """The chain of a path; a block's hash is its path and position, written as a number."""
    blocks, prefix = list[int](), 1
    for edge in path:
        prefix = prefix * (BRANCHES + 1) + edge + 1
        blocks.extend(prefix * 1000 + position for position in range(CHUNK_BLOCKS))
    return tuple(blocks)


paths = st.lists(st.integers(0, BRANCHES - 1), max_size=4).map(
    lambda path: marks_of(blocks_of(tuple(path)))
)


@dataclass
class Held:
    """One lease, and whether its prompt is prefilled."""

    lease: Lease
    marks: tuple[int, ...]
    arrived: bool = False
    private_blocks: float = 0.0


@dataclass
class Naive:
    """One replica: what is idle, oldest first, and who holds what."""

    capacity: float
    idle: list[int] = field(default_factory=list[int])
    leases: list[Held] = field(default_factory=list[Held])

    def in_use(self) -> set[int]:
        return {mark for held in self.leases for mark in held.marks}

    def prefilled(self) -> set[int]:
        """What is really there: idle, or of a prompt that has its first token."""
        used = {mark for held in self.leases if held.arrived for mark in held.marks}
        return used | self.resident_hits | set(self.idle)

    resident_hits: set[int] = field(default_factory=set[int])
    """What was there when a prompt that still waits for its first token was leased."""

    def present(self) -> set[int]:
        return self.in_use() | set(self.idle)

    def room_used(self, weight: dict[int, int]) -> float:
        blocks = sum(weight[mark] for mark in self.prefilled())
        return blocks + sum(held.private_blocks for held in self.leases)

    def evict(self, weight: dict[int, int]) -> None:
        while self.idle and self.room_used(weight) > self.capacity:
            self.idle.pop(0)

    def settle(self) -> None:
        """Hits of waiting prompts stay resident only while somebody uses them."""
        self.resident_hits &= self.in_use()


class PrefixIndexAgainstNaive(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from([5, 30, 70]))
    def begin(self, capacity: int) -> None:
        self.index = PrefixIndex()
        self.naive = [Naive(capacity) for _ in range(REPLICAS)]
        self.weight: dict[int, int] = {}
        for replica in range(REPLICAS):
            self.index.add_replica(replica, capacity)

    def held(self, replica: int, marks: tuple[int, ...]) -> int:
        found = self.index.lookup(marks, 1 << replica)
        return found[0][0] if found else 0

    @rule(replica=st.integers(0, REPLICAS - 1), marks=paths)
    def lease(self, replica: int, marks: tuple[int, ...]) -> None:
        naive = self.naive[replica]
        for position, mark in enumerate(marks):
            self.weight[mark] = blocks_covered(position + 1) - blocks_covered(position)
        naive.resident_hits |= naive.prefilled() & set(marks)
        naive.idle = [mark for mark in naive.idle if mark not in marks]
        lease = self.index.lease(replica, marks)
        naive.leases.append(Held(lease, marks))

    @rule(replica=st.integers(0, REPLICAS - 1), which=st.integers(0, 5), decoded=st.integers(0, 9))
    def arrive(self, replica: int, which: int, decoded: int) -> None:
        naive = self.naive[replica]
        waiting = [held for held in naive.leases if not held.arrived]
        if not waiting:
            return
        held = waiting[which % len(waiting)]
        self.index.arrived(held.lease, decoded / 4)
        held.arrived, held.private_blocks = True, decoded / 4
        naive.evict(self.weight)

    @rule(replica=st.integers(0, REPLICAS - 1), which=st.integers(0, 5))
    def release(self, replica: int, which: int) -> None:
        naive = self.naive[replica]
        if not naive.leases:
            return
        held = naive.leases[which % len(naive.leases)]
        there = naive.prefilled()
        naive.leases.remove(held)
        self.index.release(held.lease)
        unused = [mark for mark in reversed(held.marks) if mark not in naive.in_use()]
        naive.idle += [mark for mark in unused if mark in there]
        # What another waiting prompt hits and this one brought is resident from now on.
        naive.resident_hits |= {mark for mark in held.marks if held.arrived}
        naive.settle()
        naive.evict(self.weight)

    @rule(replica=st.integers(0, REPLICAS - 1), capacity=st.sampled_from([0, 20, 60]))
    def resize(self, replica: int, capacity: int) -> None:
        self.index.set_capacity(replica, capacity)
        self.naive[replica].capacity = capacity
        self.naive[replica].evict(self.weight)

    @rule(replica=st.integers(0, REPLICAS - 1))
    def restart(self, replica: int) -> None:
        naive = self.naive[replica]
        self.index.add_replica(replica, naive.capacity)
        for held in naive.leases:
            self.index.release(held.lease)
        self.naive[replica] = Naive(naive.capacity)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        for replica, naive in enumerate(getattr(self, "naive", [])):
            present = naive.present()
            for marks in EVERY_MARKS:
                depth = self.held(replica, marks)
                expected = [mark in present for mark in marks]
                assert expected == [position < depth for position in range(len(marks))]

    @invariant()
    def only_what_runs_exceeds_the_capacity(self) -> None:
        for naive in getattr(self, "naive", []):
            assert not naive.idle or naive.room_used(self.weight) <= naive.capacity

    @invariant()
    def knows_what_running_requests_share(self) -> None:
        for replica, naive in enumerate(getattr(self, "naive", [])):
            used = naive.in_use()
            uses = sum(self.weight[mark] for held in naive.leases for mark in held.marks)
            once = sum(self.weight[mark] for mark in used)
            assert self.index.shared_blocks(replica) == uses - once
            for marks in EVERY_MARKS:
                in_use = self.index.marks_in_use(replica, marks)
                assert [mark in used for mark in marks] == [
                    position < in_use for position in range(len(marks))
                ]


def every_path() -> list[tuple[int, ...]]:
    """Paths of two edges in full, and some of four."""
    short = [(a, b) for a in range(BRANCHES) for b in range(BRANCHES)]
    return short + [(a, b, c, a) for a, b in short for c in range(BRANCHES)]


EVERY_MARKS = [marks_of(blocks_of(path)) for path in every_path()]


def test_marks_go_beyond_the_fine_ones():
    assert len(blocks_of((0, 0, 0, 0))) > FINE_BLOCKS


TestPrefixIndex = PrefixIndexAgainstNaive.TestCase
TestPrefixIndex.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
