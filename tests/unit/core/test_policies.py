"""The baselines: what each of them counts, whom it picks, and how it says so."""

import random
from collections import Counter

import pytest

from headrace.core.candidates import ENOUGH, Ask
from headrace.core.decisions import ExplainedAttempt
from headrace.core.hash_ring import HashRing
from headrace.core.policies.prefix_hash import BEHIND_ALL, KEY_BLOCKS, PrefixHash, load_bound
from headrace.core.routing import pair
from headrace.core.specs import PoolSpec
from tests.unit.core.driver import PROFILE, Driver, chain


def driver_of(policy: str, *names: str) -> Driver:
    driver = Driver(PoolSpec("pool", "model", policy=policy, profile=PROFILE))
    driver.add(*names)
    return driver


def explained(driver: Driver, request_id: str) -> ExplainedAttempt:
    explanation = driver.dispatcher.decisions.explain(request_id)
    assert explanation is not None
    return explanation.attempts[-1]


# ---------------------------------------------------------------- least_requests


def test_least_requests_counts_requests_whatever_their_size():
    driver = driver_of("least_requests", "a", "b")
    driver.dispatched(prompt_tokens=50_000)
    driver.dispatched(prompt_tokens=10)
    small = driver.dispatched(prompt_tokens=10)
    assert small.replica == "a"  # a tie: longest without a new one
    assert driver.dispatched(id="it", prompt_tokens=10).replica == "b"
    attempt = explained(driver, "it")
    assert [(each.replica, each.cost) for each in attempt.candidates] == [("b", 1.0), ("a", 2.0)]
    assert attempt.cost_unit == "requests"
    assert attempt.reason == (
        "replica b: 1 request in flight, prefill 10 of 10 tokens; 1 fewer than a"
    )


def test_least_requests_breaks_ties_as_the_house_does():
    driver = driver_of("least_requests", "a", "b", "c")
    assert [driver.dispatched().replica for _ in range(4)] == ["a", "b", "c", "a"]
    assert explained(driver, "request-2").reason.endswith(
        "c would cost the same but comes later by name"
    )


# ---------------------------------------------------------------- power_of_two


def test_power_of_two_takes_the_less_busy_of_the_two_it_is_shown():
    driver = driver_of("power_of_two", *"abcdefgh")
    for number in range(200):
        chosen = driver.dispatched(id=f"r{number}").replica
        candidates = explained(driver, f"r{number}").candidates
        assert len(candidates) == 2
        least = min(candidates, key=lambda each: each.in_flight)
        assert least.in_flight == next(e.in_flight for e in candidates if e.replica == chosen)
    loads = [driver.replica(name).in_flight for name in "abcdefgh"]
    assert sum(loads) == 200
    assert max(loads) - min(loads) <= 6  # one random choice spreads by some 20


def test_power_of_two_makes_do_with_one():
    driver = driver_of("power_of_two", "only")
    assert driver.dispatched().replica == "only"


def test_every_pair_is_as_likely():
    driver = driver_of("power_of_two", *"abcd")
    replicas = list(driver.dispatcher.fleet.replicas.values())
    rng = random.Random(7)
    pairs = Counter(tuple(each.name for each in pair(replicas, rng)) for _ in range(6000))
    assert sorted("".join(names) for names in pairs) == ["ab", "ac", "ad", "bc", "bd", "cd"]
    assert all(count == pytest.approx(1000, abs=150) for count in pairs.values())


# ---------------------------------------------------------------- prefix_hash


@pytest.mark.parametrize(
    ("in_flight", "replicas", "bound"),
    [(0, 1, 2), (0, 4, 1), (3, 4, 2), (7, 4, 3), (15, 4, 5), (99, 10, 13), (0, 1000, 1)],
)
def test_a_bound_is_125_percent_of_the_mean_rounded_up(in_flight, replicas, bound):
    assert load_bound(in_flight, replicas) == bound


def test_prefix_hash_follows_the_ring():
    driver = driver_of("prefix_hash", "a", "b", "c")
    ring = HashRing()
    ring.add("abc")
    for part in "pqrstuvw":
        prompt = chain(part)
        first = next(ring.walk(prompt[KEY_BLOCKS - 1]))
        assert driver.dispatched(id=part, blocks=prompt).replica == first
        driver.complete(explained(driver, part).attempt)
        assert explained(driver, part).reason.startswith(
            f"replica {first}: the first place on the ring for this prefix, prefill"
        )


def test_a_full_replica_is_passed_over_for_the_next_on_the_ring():
    driver = driver_of("prefix_hash", "a", "b", "c")
    prompt = chain("hot")
    ring = HashRing()
    ring.add("abc")
    order = list(ring.walk(prompt[KEY_BLOCKS - 1]))
    # ceil(1.25 * 1 / 3) = 1, then ceil(1.25 * 2 / 3) = 1, ceil(1.25 * 3 / 3) = 2, …
    chosen = [driver.dispatched(id=f"r{number}", blocks=prompt).replica for number in range(4)]
    assert chosen == [order[0], order[1], order[0], order[1]]
    attempt = explained(driver, "r1")
    assert [(each.replica, each.cost) for each in attempt.candidates] == [
        (order[1], 1.0),
        (order[2], 2.0),
        (order[0], BEHIND_ALL),
    ]
    assert [(term.name, term.value, term.unit) for term in attempt.candidates[2].terms] == [
        ("from its prefix", 0.0, "places"),
        ("at its load bound", BEHIND_ALL, "places"),
    ]
    assert attempt.cost_unit == "places"
    assert attempt.reason.startswith(
        f"replica {order[1]}: 1 place further on the ring, since all before are at their load bound"
    )


def test_only_the_first_blocks_make_the_key():
    driver = driver_of("prefix_hash", *"abcdefgh")
    common = chain("system", blocks_each=KEY_BLOCKS)
    prompts = [common + chain(part)[:5] for part in "pqrst"]
    homes = set()
    for prompt in prompts:
        dispatch = driver.dispatched(blocks=prompt)
        driver.complete(dispatch.attempt)
        homes.add(dispatch.replica)
    assert len(homes) == 1


def test_a_prompt_without_a_whole_block_goes_to_the_fewest_in_flight():
    driver = driver_of("prefix_hash", "a", "b", "c")
    assert [driver.dispatched(text_bytes=40).replica for _ in range(4)] == ["a", "b", "c", "a"]
    assert driver.dispatched(id="it", text_bytes=40).replica == "b"
    assert all(each.cost == 0.0 for each in explained(driver, "it").candidates)


def test_a_replica_that_was_away_gets_its_prefixes_back():
    driver = driver_of("prefix_hash", "a", "b", "c")
    prompt = chain("mine")
    home = driver.serve(blocks=prompt)
    driver.add(home, ready=False)
    assert driver.serve(blocks=prompt) != home
    driver.add(home)
    assert driver.serve(blocks=prompt) == home
    driver.gone(home)
    assert driver.serve(blocks=prompt) != home
    driver.add(home)
    assert driver.serve(blocks=prompt) == home


def test_a_failed_attempt_goes_to_the_next_on_the_ring():
    driver = driver_of("prefix_hash", "a", "b", "c")
    prompt = chain("mine")
    ring = HashRing()
    ring.add("abc")
    order = list(ring.walk(prompt[KEY_BLOCKS - 1]))
    first = driver.dispatched(id="it", blocks=prompt)
    driver.fail(first.attempt)
    assert first.replica == order[0]
    assert explained(driver, "it").replica == order[1]


def test_who_left_is_forgotten():
    driver = driver_of("prefix_hash", "a", "b")
    policy = PrefixHash()
    replicas = list(driver.dispatcher.fleet.replicas.values())
    policy.price(Ask(10, 64.0, 1.0, (5,)), replicas, 0.0)
    assert len(policy._ring) == 2
    policy.left("a")
    policy.left("never seen")
    assert len(policy._ring) == 1
    assert list(policy._ring.walk(5)) == ["b"]


# ---------------------------------------------------------------- large fleets


@pytest.mark.parametrize("policy", ["round_robin", "least_requests", "prefix_hash"])
@pytest.mark.parametrize("blocks", [chain("it"), ()], ids=["prompt", "short prompt"])
def test_of_a_large_fleet_only_the_first_in_order_are_priced(policy, blocks):
    names = [f"r{number:02}" for number in range(40)]
    driver = driver_of(policy, *names)
    for number in range(120):
        driver.dispatched(id=f"r{number}", blocks=blocks)
        assert explained(driver, f"r{number}").considered <= 40
    # The mean is 3, and 125 % of it 4 where the same prefix must overflow.
    loads = [driver.replica(name).in_flight for name in names]
    assert max(loads) <= (4 if policy == "prefix_hash" and blocks else 3)
    assert explained(driver, "r0").considered == ENOUGH
