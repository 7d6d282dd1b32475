"""Blocks of a known size, and replicas whose engines tell what they hold."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import (
    Arrived,
    ConfigChanged,
    Dispatch,
    Ended,
    FirstToken,
    KvChanged,
    ReplicaChanged,
    ReplicaGone,
    Scraped,
)
from headrace.core.kv_event_index import KvEventIndex
from headrace.core.model import Endpoint, EngineReport, Outcome, PromptBlocks, Request, Usage
from headrace.core.prefix_index import PrefixIndex
from headrace.core.prompt_marks import EVERY_BLOCK
from headrace.core.settings import DispatcherSettings
from tests.unit.core.driver import POOL, chain

BLOCK_TOKENS = 512
LONG = chain("a", "b", "c", "d", "e", "f")
"""48 blocks: beyond the fine marks of prompts in bytes."""


class Exact:
    """A dispatcher for prompts in blocks of 512 tokens, before replicas a and b."""

    def __init__(self, *, kv_events: bool = False) -> None:
        blocks = PromptBlocks(BLOCK_TOKENS, kv_events=kv_events)
        self.dispatcher = Dispatcher(DispatcherSettings(), random.Random(1), blocks)
        self.now = 100.0
        self.send(ConfigChanged((POOL,), ()))
        for name in "ab":
            self.send(ReplicaChanged(name, "pool", f"http://{name}", True))
            self.send(Scraped(name, EngineReport(kv_capacity_tokens=400_000)))
        self._requests = 0

    def send(self, event):
        return self.dispatcher.handle(event, self.now)

    def arrive(self, blocks: tuple[int, ...], tokens: int) -> Dispatch:
        self._requests += 1
        request = Request(
            f"r{self._requests}", "model", Endpoint.CHAT, True, prompt_tokens=tokens, blocks=blocks
        )
        dispatch = self.send(Arrived(request))[0]
        assert isinstance(dispatch, Dispatch)
        return dispatch

    def serve(self, blocks: tuple[int, ...], tokens: int) -> Dispatch:
        dispatch = self.arrive(blocks, tokens)
        self.send(FirstToken(dispatch.attempt))
        self.send(Ended(dispatch.attempt, Outcome.COMPLETED, Usage(tokens, 5), 5, 200))
        self.now += 100.0  # it is idle again
        return dispatch

    def hit_tokens(self) -> int:
        """What was expected to be cached where the last request went."""
        told = self.dispatcher.decisions.explain_last()
        assert told is not None
        return told.attempts[-1].candidates[0].hit_tokens


@pytest.mark.parametrize("shared", [1, 17, 18, 19, 48])
def test_every_block_counts_with_its_exact_size(shared):
    exact = Exact()
    exact.serve(LONG, 48 * BLOCK_TOKENS + 100)
    exact.arrive((*LONG[:shared], *chain("other")), 60 * BLOCK_TOKENS)
    assert exact.hit_tokens() == shared * BLOCK_TOKENS


def test_the_last_token_is_prefilled_anew():
    exact = Exact()
    exact.serve(LONG, 48 * BLOCK_TOKENS)
    exact.arrive(LONG, 48 * BLOCK_TOKENS)
    assert exact.hit_tokens() == 48 * BLOCK_TOKENS - 1


def test_capacity_is_in_these_blocks():
    exact = Exact()
    exact.send(Scraped("a", EngineReport(kv_capacity_tokens=20 * BLOCK_TOKENS)))
    exact.send(ReplicaGone("b"))
    exact.serve(LONG[:15], 15 * BLOCK_TOKENS + 1)
    exact.serve(chain("x", blocks_each=15), 15 * BLOCK_TOKENS + 1)
    exact.arrive(LONG[:15], 15 * BLOCK_TOKENS + 1)
    # 30 blocks where 20 fit: the older prompt's deepest ones are gone.
    assert exact.hit_tokens() == 5 * BLOCK_TOKENS


class TestKvEvents:
    def test_only_engines_tell_what_is_cached(self):
        exact = Exact(kv_events=True)
        exact.serve(LONG, 48 * BLOCK_TOKENS)
        exact.serve(LONG, 49 * BLOCK_TOKENS)
        assert exact.hit_tokens() == 0
        exact.send(KvChanged("b", stored=LONG[:40]))
        assert exact.serve(LONG, 49 * BLOCK_TOKENS).replica == "b"
        assert exact.hit_tokens() == 40 * BLOCK_TOKENS
        exact.send(KvChanged("b", removed=LONG[30:]))
        exact.arrive(LONG, 49 * BLOCK_TOKENS)
        assert exact.hit_tokens() == 30 * BLOCK_TOKENS

    def test_a_replica_that_left_holds_nothing(self):
        exact = Exact(kv_events=True)
        exact.send(KvChanged("b", stored=LONG))
        exact.send(ReplicaGone("b"))
        exact.send(KvChanged("b", stored=LONG))
        exact.send(ReplicaChanged("c", "pool", "http://c", True))
        exact.arrive(LONG, 49 * BLOCK_TOKENS)
        assert exact.hit_tokens() == 0

    def test_without_them_such_events_change_nothing(self):
        exact = Exact()
        exact.send(KvChanged("b", stored=LONG))
        exact.arrive(LONG, 49 * BLOCK_TOKENS)
        assert exact.hit_tokens() == 0


_changes = st.lists(
    st.tuples(st.integers(0, 2), st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6))),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(changes=_changes, mask=st.integers(0, 7))
def test_a_hit_ends_at_the_first_gap(changes, mask):
    index, held = KvEventIndex(), [set[int]() for _ in range(3)]
    for replica in range(3):
        index.add_replica(replica, 100)
    for replica, stored, removed in changes:
        index.changed(replica, tuple(sorted(stored)), tuple(sorted(removed)))
        held[replica] = (held[replica] - removed) | stored
    prompt = (0, 1, 2, 3, 4)
    depths = [next((i for i in prompt if i not in held[replica]), 5) for replica in range(3)]
    expected: dict[int, int] = {}
    for replica, depth in enumerate(depths):
        if depth and mask >> replica & 1:
            expected[depth] = expected.get(depth, 0) | 1 << replica
    assert index.lookup(prompt, mask) == sorted(expected.items(), reverse=True)


def test_both_indices_take_the_same_calls():
    calls = {name for name in vars(PrefixIndex) if not name.startswith("_")}
    assert calls == {name for name in vars(KvEventIndex) if not name.startswith("_")}


def test_every_block_may_be_kept():
    index = PrefixIndex(EVERY_BLOCK)
    index.add_replica(0, 20)
    lease = index.lease(0, LONG[:20])
    index.arrived(lease, 0.0)
    index.release(lease)
    assert index.lookup(LONG, 1) == [(20, 1)]
    other = index.lease(0, chain("x", blocks_each=3))
    index.arrived(other, 0.0)
    assert index.lookup(LONG, 1) == [(17, 1)]


@pytest.mark.parametrize("index", [PrefixIndex(EVERY_BLOCK), KvEventIndex()], ids=["own", "told"])
def test_what_running_requests_share_is_known_of_both_kinds_of_index(index):
    index.add_replica(0, 1000)
    common, other = (*LONG[:20], 1, 2), LONG[:30]
    leases = [index.lease(0, LONG)]
    assert (index.shared_blocks(0), index.marks_in_use(0, common)) == (0, 20)
    leases.append(index.lease(0, common))
    leases.append(index.lease(0, other))
    assert index.shared_blocks(0) == 20 + 30
    assert index.marks_in_use(0, common) == 22
    index.release(leases[0])
    assert index.shared_blocks(0) == 20
    assert index.marks_in_use(0, LONG) == 30
    for lease in leases[1:]:
        index.release(lease)
    assert (index.shared_blocks(0), index.marks_in_use(0, LONG)) == (0, 0)
