"""Which replica holds what, and what leaves when there is no room."""

import pytest

from headrace.core.model import COARSE_BLOCKS, FINE_BLOCKS
from headrace.core.prefix_index import PrefixIndex
from headrace.core.prompt_marks import blocks_covered, mix_identity
from headrace.core.replica_cache import Lease
from tests.unit.core.driver import chain
from tests.unit.core.marks import marks_of

EVERYONE = 0b1111


def index_of(*capacities: float) -> PrefixIndex:
    index = PrefixIndex()
    for replica, capacity in enumerate(capacities):
        index.add_replica(replica, capacity)
    return index


def held(index: PrefixIndex, replica: int, marks: tuple[int, ...]) -> int:
    found = index.lookup(marks, 1 << replica)
    return found[0][0] if found else 0


def lease(index: PrefixIndex, replica: int, marks: tuple[int, ...]) -> Lease:
    return index.lease(replica, marks)


def run(index: PrefixIndex, replica: int, marks: tuple[int, ...]) -> None:
    """A request from its dispatch to its end."""
    it = lease(index, replica, marks)
    index.arrived(it, 0.0)
    index.release(it)


def test_finds_the_deepest_hit_of_each_replica():
    index = index_of(100, 100, 100, 100)
    prompt = chain("system", "first", "second", blocks_each=4)
    run(index, 0, prompt[:4])
    run(index, 1, prompt)
    run(index, 2, prompt[:8])
    assert index.lookup(prompt, EVERYONE) == [(12, 0b0010), (8, 0b0100), (4, 0b0001)]
    assert index.lookup(prompt, 0b0101) == [(8, 0b0100), (4, 0b0001)]
    assert index.lookup(chain("other"), EVERYONE) == []
    assert index.lookup((), EVERYONE) == []


def test_replicas_that_hold_alike_are_found_together():
    index = index_of(100, 100, 100)
    prompt = chain("a")
    for replica in (0, 2):
        run(index, replica, prompt)
    assert index.lookup(prompt + chain("b"), EVERYONE) == [(8, 0b101)]


def test_a_prompt_in_flight_counts_as_present_and_evicts_nothing():
    index = index_of(8)
    old, new = chain("old"), chain("new")
    run(index, 0, old)
    it = lease(index, 0, new)
    assert held(index, 0, new) == 8
    assert held(index, 0, old) == 8
    index.arrived(it, 0.0)
    assert held(index, 0, new) == 8
    assert held(index, 0, old) == 0


def test_an_attempt_that_fails_before_its_first_token_leaves_nothing():
    index = index_of(100)
    shared, own = chain("a"), chain("a", "b")
    run(index, 0, shared)
    index.release(lease(index, 0, own))
    assert held(index, 0, own) == 8


def test_what_another_request_still_brings_stays():
    index = index_of(100)
    first, second = chain("a", "b"), chain("a", "c")
    one, two = lease(index, 0, first), lease(index, 0, second)
    index.release(one)
    assert held(index, 0, first) == 8
    index.arrived(two, 0.0)
    index.release(two)
    assert held(index, 0, second) == 16


def test_the_least_recently_used_leaves_first_and_leaves_first_of_a_chain():
    index = index_of(20)
    a, b, c = chain("a"), chain("b"), chain("c")
    run(index, 0, a)
    run(index, 0, b)
    run(index, 0, a)
    run(index, 0, c)
    assert [held(index, 0, each) for each in (a, b, c)] == [8, 4, 8]


def test_what_runs_is_not_evicted():
    index = index_of(10)
    running = chain("running")
    it = lease(index, 0, running)
    index.arrived(it, 0.0)
    run(index, 0, chain("other"))
    assert held(index, 0, running) == 8
    assert held(index, 0, chain("other")) == 2


def test_what_must_go_counts_where_no_other_replica_holds_it():
    index = index_of(20, 100)
    alone, twice = chain("alone"), chain("twice")
    run(index, 0, twice)
    run(index, 0, alone)
    run(index, 1, twice)
    assert index.last_copies(0, 4) == 0  # there is room
    assert index.last_copies(0, 12) == 0  # what falls idle first is elsewhere, too
    assert index.last_copies(0, 15) == 3
    assert index.last_copies(0, 1000) == 8
    assert index.last_copies(1, 1000) == 0
    in_use = lease(index, 0, alone)
    assert index.last_copies(0, 1000) == 0
    index.release(in_use)
    assert [held(index, 0, each) for each in (alone, twice)] == [8, 8]


def test_decoded_tokens_take_room():
    index = index_of(10)
    idle = chain("idle")
    run(index, 0, idle)
    it = lease(index, 0, ())
    index.arrived(it, 0.0)
    index.grow(it, 5.5)
    assert held(index, 0, idle) == 4
    index.release(it)
    run(index, 0, chain("next", blocks_each=6))
    assert held(index, 0, idle) == 4


def test_a_smaller_cache_forgets_at_once():
    index = index_of(100)
    run(index, 0, chain("a"))
    index.set_capacity(0, 3)
    assert held(index, 0, chain("a")) == 3


def test_a_removed_replica_holds_nothing_and_its_index_starts_afresh():
    index = index_of(100, 100)
    prompt = chain("a")
    run(index, 0, prompt)
    old = lease(index, 1, prompt)
    index.remove_replica(0)
    index.remove_replica(1)
    assert index.lookup(prompt, EVERYONE) == []
    index.add_replica(1, 100)
    index.arrived(old, 1.0)
    index.release(old)
    assert index.lookup(prompt, EVERYONE) == []


def test_a_false_hit_takes_what_was_idle_for_longer_with_it():
    index = index_of(100)
    older, hit, younger = chain("older"), chain("hit"), chain("younger")
    for prompt in (older, hit, younger):
        run(index, 0, prompt)
    it = lease(index, 0, hit)
    index.arrived(it, 0.0)
    index.release(it)
    assert index.forget_older_than(it) == 8
    assert [held(index, 0, each) for each in (older, hit, younger)] == [0, 8, 8]


def test_nothing_is_learned_from_a_false_hit_on_what_was_in_use():
    index = index_of(100)
    run(index, 0, chain("older"))
    prompt = chain("hit")
    running = lease(index, 0, prompt)
    it = lease(index, 0, prompt)
    assert index.forget_older_than(it) == 0
    index.release(running)


@pytest.mark.parametrize("blocks", [0, 1, FINE_BLOCKS, FINE_BLOCKS + 3, FINE_BLOCKS + 4, 1000])
def test_long_prompts_are_thinned_alike_whatever_follows(blocks):
    long = tuple(range(5000))
    marks = marks_of(long[:blocks])
    assert marks_of(long)[: len(marks)] == marks
    assert blocks - COARSE_BLOCKS < blocks_covered(len(marks)) <= blocks


def test_coarse_marks_take_the_room_of_their_blocks():
    index = index_of(100)
    first, second = marks_of(chain("a", blocks_each=80)), marks_of(chain("b", blocks_each=80))
    run(index, 0, first)
    run(index, 0, second)
    assert blocks_covered(held(index, 0, second)) == 80
    assert blocks_covered(held(index, 0, first)) == 20


def test_an_adapter_has_a_cache_of_its_own():
    marks = chain("a")
    mixed = mix_identity(marks, "lora-1")
    assert mixed == mix_identity(marks, "lora-1")
    assert mix_identity((0,), "a") == (0xAF63DC4C8601EC8C,)  # FNV-1a's own test vector
    assert not set(mixed) & set(mix_identity(marks, "lora-2"))
    assert not set(mixed) & set(marks)


def fill(index: PrefixIndex, prompts: int) -> list[tuple[int, ...]]:
    chains = [chain(f"p{number}") for number in range(prompts)]
    for marks in chains:
        run(index, 0, marks)
    return chains


def test_a_false_hit_shows_a_smaller_cache_and_true_ones_let_it_grow_again():
    index = index_of(80)
    chains = fill(index, 10)  # 8 blocks each: full
    assert held(index, 0, chains[0]) == 8
    it = lease(index, 0, chains[5])
    index.arrived(it, 0.0)
    index.release(it)
    index.forget_older_than(it)  # its engine had none of it, so nothing older is there
    assert [held(index, 0, marks) for marks in chains] == [0] * 5 + [8] * 5
    more = fill(index, 20)[10:]
    kept = sum(held(index, 0, marks) for marks in more)
    assert 0.8 * 80 - 8 <= kept <= 0.8 * 80
    index.set_capacity(0, 80)  # the next scrape says what it always said
    assert sum(held(index, 0, marks) for marks in more) == kept
    for _ in range(30):
        it = lease(index, 0, more[-1])
        index.arrived(it, 0.0)
        index.release(it)
        index.confirm(it)
    fill(index, 20)
    assert sum(held(index, 0, marks) for marks in more) == 80


def test_a_cache_is_never_taken_to_be_next_to_nothing():
    index = index_of(1600)
    for _ in range(50):
        it = lease(index, 0, chain("p"))
        index.arrived(it, 0.0)
        index.release(it)
        index.forget_older_than(it)
    chains = fill(index, 12)
    assert sum(held(index, 0, marks) for marks in chains) >= 1600 / 16 - 8
