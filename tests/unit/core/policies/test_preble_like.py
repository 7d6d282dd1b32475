"""Preble-like: exploit if more is cached than missed, else load + prefill + eviction."""

import pytest

from headrace.core.baselines import RULED_OUT
from headrace.core.latency import LatencyProfile
from tests.unit.core.policies.bench import Bench, State

PROFILE = LatencyProfile("plain", "profile plain", 0.01, 1e-4, per_sequence_s=1e-3)


@pytest.mark.parametrize(("cached", "picked"), [(5, "b"), (6, "a")])
def test_exploits_where_more_is_cached_than_missed(cached, picked):
    # 500 of 1,000 is not more than 500; the cost of a's backlog is far above b's.
    bench = Bench("preble_like", a=State(backlog=50_000, hit=cached), b=State())
    assert bench.pick(1000, block_tokens=100) == picked


def test_the_ratio_is_a_parameter():
    states = {"a": State(backlog=50_000, hit=6), "b": State()}
    assert Bench("preble_like:exploit_ratio=2", **states).pick(1000, block_tokens=100) == "b"
    assert Bench("preble_like:exploit_ratio=0.5", **states).pick(1000, block_tokens=100) == "a"


def test_of_the_longest_matches_the_least_cost():
    bench = Bench("preble_like", a=State(backlog=500, hit=9), b=State(hit=9), c=State(hit=8))
    costs = bench.costs(1000, block_tokens=100)
    assert costs == {"b": 100.0, "a": 600.0, "c": RULED_OUT + 200}
    assert bench.reason(1000, block_tokens=100).startswith(
        "replica b: 0 uncached tokens in flight + prefill 100 of 1,000 tokens"
    )


def test_explores_by_load_prefill_and_eviction_in_seconds():
    bench = Bench("preble_like", PROFILE, a=State(in_flight=4, hit=2), b=State())
    # prefill = 0.01 + 1e-4 * uncached; decoding = 100 tokens * (0.01 + 1e-3 * (in flight + 1)).
    first = {"a": 0.09 + 100 * 0.015, "b": 0.11 + 100 * 0.011}
    assert bench.costs(1000, block_tokens=100) == pytest.approx(first)
    assert bench.pick(1000, block_tokens=100) == "b"
    bench.policy.chosen("a")
    # Of 2,000 prompt tokens 200 were found cached: a tenth of 1e-4 s per uncached token.
    after = {"a": first["a"] + 0.1 * 1e-4 * 800, "b": first["b"] + 0.1 * 1e-4 * 1000}
    assert bench.costs(1000, block_tokens=100) == pytest.approx(after)
    terms = bench.terms("a", 1000, 100)
    assert {name: round(term.value, 9) for name, term in terms.items()} == {
        "queue": 0.0,
        "slot wait": 0.0,
        "prefill": 0.09,
        "decoding": 1.5,
        "eviction": 0.008,
        "not the longest match": 0.0,
    }


def test_in_tokens_while_there_is_no_profile():
    bench = Bench("preble_like:eviction_weight=2", a=State(backlog=300, hit=3), b=State())
    assert bench.costs(1000, block_tokens=100) == {"a": 300 + 700, "b": 1000}
    bench.policy.chosen("a")  # 300 of 1,000 were cached
    assert bench.costs(1000, block_tokens=100) == pytest.approx(
        {"a": 300 + 700 * 1.6, "b": 1000 * 1.6}
    )


def test_one_replica_without_a_prompt_of_blocks():
    assert Bench("preble_like", only=State()).pick(5) == "only"
