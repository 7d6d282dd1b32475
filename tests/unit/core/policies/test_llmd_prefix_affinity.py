"""Sticky >= 0.80 unless the best sticky is more than 18 s behind the best other."""

import pytest

from headrace.core.baselines import RULED_OUT
from headrace.core.latency import LatencyProfile
from headrace.core.llmd_scores import TOKEN_LOAD_LIMIT
from tests.unit.core.policies.bench import Bench, State, scraped

POLICY = "llmd_prefix_affinity"
PEAK = 15_928


def test_the_sticky_are_kept_and_the_least_token_load_among_them_wins():
    # Of 10 blocks: a 8 (0.8, sticky), b 9 (sticky), c 7 (not).
    bench = Bench(POLICY, a=State(backlog=1000, hit=8), b=State(backlog=900, hit=9), c=State(hit=7))
    costs = bench.costs(1000, block_tokens=100)
    # block_tokens of the score is 64: 800 // 64 = 12 of 15 blocks, 0.8; 900: 14; 700: 10, 0.67.
    assert costs["a"] == pytest.approx(-(1 - 1200 / TOKEN_LOAD_LIMIT))
    assert costs["b"] == pytest.approx(-(1 - 1000 / TOKEN_LOAD_LIMIT))
    assert costs["c"] == pytest.approx(RULED_OUT - (1 - 300 / TOKEN_LOAD_LIMIT))
    assert bench.pick(1000, block_tokens=100) == "b"
    only_a = Bench(POLICY, a=State(backlog=900, hit=8), c=State(hit=7))
    assert only_a.reason(1000, block_tokens=100) == (
        "replica a: score 0.999738, prefill 200 of 1,000 tokens; "
        "c is ruled out: too little of the prefix"
    )


@pytest.mark.parametrize(
    ("policy", "backlog", "picked"),
    [
        (POLICY, 18 * PEAK, "a"),  # 18.0 s behind is not more
        (POLICY, 18 * PEAK + 1, "b"),
        (f"{POLICY}:max_ttft_penalty_s=5", 5 * PEAK, "a"),
        (f"{POLICY}:max_ttft_penalty_s=5", 5 * PEAK + 1, "b"),
        (f"{POLICY}:max_ttft_penalty_s=0", 1000 * PEAK, "a"),  # always sticks
        (f"{POLICY}:peak_tokens_per_s=1000", 18_000, "a"),
        (f"{POLICY}:peak_tokens_per_s=1000", 18_001, "b"),
    ],
)
def test_affinity_breaks_where_the_sticky_are_too_far_behind(policy, backlog, picked):
    assert Bench(policy, a=State(backlog=backlog, hit=9), b=State()).pick(640) == picked


def test_the_gate_compares_the_best_of_both():
    far, near = 40 * PEAK, 10 * PEAK
    bench = Bench(
        POLICY, a=State(backlog=far, hit=9), b=State(backlog=near, hit=9), c=State(backlog=far)
    )
    # The best sticky is 30 s ahead of the best other.
    assert bench.pick(640) == "b"
    bench = Bench(
        POLICY, a=State(backlog=far, hit=9), b=State(backlog=far, hit=9), c=State(backlog=near)
    )
    assert bench.pick(640) == "c"


def test_the_profile_tells_the_peak():
    # 8,192 tokens in 0.008 + 8192 * 1e-4 = 0.8272 s are 9,903 tokens per second.
    profile = LatencyProfile("slow", "profile slow", 0.008, 1e-4)
    peak = 8192 / 0.8272
    for backlog, picked in ((17.99 * peak, "a"), (18.01 * peak, "b")):
        states = {"a": State(backlog=int(backlog), hit=9), "b": State()}
        assert Bench(POLICY, profile, **states).pick(640) == picked
    given = f"{POLICY}:peak_tokens_per_s=15928"
    assert Bench(given, profile, a=State(backlog=18 * PEAK, hit=9), b=State()).pick(640) == "a"


def test_all_are_kept_where_none_or_all_are_sticky():
    assert Bench(POLICY, a=State(backlog=9, hit=3), b=State(backlog=500)).pick(640) == "a"
    assert Bench(POLICY, a=State(backlog=9, hit=9), b=State(hit=9)).pick(640) == "b"
    assert Bench(POLICY, only=State()).pick(640) == "only"


def test_the_other_scorers_can_follow_too():
    states = {
        "a": State(report=scraped(4, 0.0)),
        "b": State(report=scraped(0, 0.5)),
    }
    bench = Bench(f"{POLICY}:token_weight=0,queue_weight=2,kv_weight=2", **states)
    assert bench.costs(640) == pytest.approx({"a": -2.0, "b": -3.0})


def test_equals_are_drawn():
    bench = Bench(POLICY, a=State(hit=9), b=State(hit=9), c=State())
    picks = [bench.pick(640) for _ in range(50)]
    assert set(picks) == {"a", "b"}
