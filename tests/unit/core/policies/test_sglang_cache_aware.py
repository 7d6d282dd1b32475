"""cache_aware: imbalanced <=> max - min > 64 and max > 1.5 * min; else match > 0.3; else load."""

import pytest

from headrace.core.baselines import RULED_OUT
from tests.unit.core.policies.bench import Bench, State


def test_balanced_and_matched_the_best_match_wins_whatever_its_load():
    bench = Bench("sglang_cache_aware", a=State(60), b=State(0, hit=1), c=State(64, hit=7))
    # 7 blocks of 64 are 448 of 1,000 tokens: more than 0.3. 64 - 0 is not more than 64.
    assert bench.costs(1000) == {"c": 64.0, "b": RULED_OUT, "a": RULED_OUT + 60}
    assert bench.reason(1000) == (
        "replica c: 64 requests in flight, prefill 552 of 1,000 tokens; "
        "b is ruled out: not the longest match"
    )


def test_a_match_of_exactly_the_threshold_does_not_count():
    # 300 of 1,000 tokens is 0.3, and 1 token more is not.
    bench = Bench("sglang_cache_aware", a=State(3), b=State(5, hit=3))
    assert bench.pick(1000, block_tokens=100) == "a"
    assert bench.pick(999, block_tokens=100) == "b"


@pytest.mark.parametrize(
    ("most", "least", "imbalanced"),
    [
        (64, 0, False),  # not more than 64 apart
        (65, 0, True),
        (165, 100, True),  # 65 apart, 1.65 times
        (200, 134, False),  # 66 apart, but 1.49 times
        (195, 130, False),  # 65 apart, exactly 1.5 times
    ],
)
def test_imbalance_needs_both_the_difference_and_the_ratio(most, least, imbalanced):
    bench = Bench("sglang_cache_aware", a=State(most, hit=10), b=State(least))
    assert bench.pick(1000) == ("b" if imbalanced else "a")


def test_the_defaults_of_the_library_are_other_ones():
    library = "sglang_cache_aware:cache_threshold=0.5,balance_abs=32,balance_rel=1.1"
    states = {"a": State(33, hit=10), "b": State(0)}
    assert Bench("sglang_cache_aware", **states).pick(1000) == "a"
    assert Bench(library, **states).pick(1000) == "b"
    few = {"a": State(3, hit=7), "b": State(0)}
    assert Bench("sglang_cache_aware", **few).pick(1000) == "a"
    assert Bench(library, **few).pick(1000) == "b"


def test_without_a_match_the_least_loaded_wins_and_equals_as_the_house_does():
    bench = Bench("sglang_cache_aware", a=State(2), b=State(1), c=State(1))
    assert bench.costs(1000) == {"b": 1.0, "c": 1.0, "a": 2.0}
    assert bench.pick(1000) == "b"
    assert bench.reason(1000).startswith("replica b: 1 request in flight, prefill 1,000 of 1,000")


def test_of_equal_matches_the_least_loaded():
    bench = Bench("sglang_cache_aware", a=State(9, hit=10), b=State(4, hit=10), c=State(0))
    assert bench.pick(1000) == "b"


def test_one_replica_and_a_prompt_without_blocks():
    bench = Bench("sglang_cache_aware", only=State(70, hit=1))
    assert bench.pick(1000) == "only"
    assert bench.pick(10) == "only"
    assert bench.reason(10).endswith("the only one to choose from")
