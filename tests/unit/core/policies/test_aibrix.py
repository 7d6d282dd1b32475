"""AIBrix: prefix-cache with its two guards, and least-kv-cache."""

import pytest

from headrace.core.baselines import RULED_OUT
from tests.unit.core.policies.bench import Bench, State, scraped


def test_the_longest_match_within_two_deviations_wins():
    # Loads 2, 2, 2, 10: mean 4, deviation sqrt(48 / 4) = 3.46; 4 + 2 * 3.46 = 10.9.
    loads = {"a": State(2), "b": State(2, hit=3), "c": State(2), "d": State(10, hit=9)}
    bench = Bench("aibrix_prefix_cache", **loads)
    assert bench.pick(640) == "d"
    # With one deviation the bound is 7.46: d is too busy, b has the next match.
    assert Bench("aibrix_prefix_cache:sigmas=1", **loads).pick(640) == "b"
    assert bench.reason(640) == (
        "replica d: 10 requests in flight, prefill 64 of 640 tokens; "
        "a is ruled out: not the match taken"
    )


def test_a_match_that_is_too_busy_falls_back_to_the_fewest_requests():
    # Loads 1, 1, 1, 1, 1, 1, 1, 16: mean 2.875, deviation 4.96; 2.875 + 2 * 4.96 = 12.8.
    states = {name: State(1) for name in "abcdefg"} | {"h": State(16, hit=9)}
    bench = Bench("aibrix_prefix_cache", **states)
    assert bench.pick(640) != "h"
    assert bench.costs(640)["h"] == 16.0


@pytest.mark.parametrize(("most", "picked"), [(16, "a"), (17, "b")])
def test_more_than_16_apart_the_fewest_requests_win(most, picked):
    bench = Bench("aibrix_prefix_cache:sigmas=9", a=State(most, hit=9), b=State(0))
    assert bench.pick(640) == picked


def test_of_equal_matches_the_fewest_requests_then_a_draw():
    bench = Bench(
        "aibrix_prefix_cache", a=State(3, hit=9), b=State(1, hit=9), c=State(1, hit=9), d=State(0)
    )
    assert {bench.pick(640) for _ in range(30)} == {"b", "c"}
    costs = bench.costs(640)
    assert costs["a"] == 3.0
    assert costs["d"] == RULED_OUT


def test_without_a_match_the_fewest_requests_then_a_draw():
    bench = Bench("aibrix_prefix_cache", a=State(1), b=State(0), c=State(0))
    assert {bench.pick(640) for _ in range(30)} == {"b", "c"}
    assert Bench("aibrix_prefix_cache", only=State(40)).pick(10) == "only"


def test_least_kv_cache():
    bench = Bench(
        "least_kv_cache",
        a=State(report=scraped(kv=0.4)),
        b=State(report=scraped(kv=0.25)),
        c=State(),
    )
    assert bench.costs(640) == {"b": 0.25, "a": 0.4, "c": RULED_OUT}
    assert bench.reason(640) == (
        "replica b: 25 % of its KV cache in use, prefill 640 of 640 tokens; 15 % less than a"
    )
    assert Bench("least_kv_cache", a=State(), b=State(report=scraped(kv=1.0))).pick(640) == "b"


def test_least_kv_cache_draws_where_nobody_reports():
    bench = Bench("least_kv_cache", a=State(), b=State(), c=State())
    assert {bench.pick(640) for _ in range(40)} == {"a", "b", "c"}
