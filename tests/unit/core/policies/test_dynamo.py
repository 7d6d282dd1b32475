"""Dynamo: scale * max(active prefill + prompt - credit, 0) + active decode + new, in blocks."""

from collections import Counter
from math import exp

import pytest

from headrace.core.specs import PoolSpec
from tests.unit.core.driver import PROFILE, Driver, chain
from tests.unit.core.policies.bench import Bench, State

STATES = {
    "a": State(backlog=160, context=1600, hit=10),
    "b": State(backlog=0, context=320),
    "c": State(backlog=3200, context=3200, hit=20),
}
# A prompt of 1,600 tokens is 100 blocks of 16; a hit of 10 blocks of 64 is 40 of these, 20 is 80.


def test_the_cost_in_blocks():
    assert Bench("dynamo_kv", **STATES).costs(1600) == {
        "a": (10 + 100 - 40) + 100 + 100,
        "b": (0 + 100 - 0) + 20 + 100,
        "c": (200 + 100 - 80) + 200 + 100,
    }


def test_blocks_held_by_several_requests_count_once_and_are_not_new():
    driver = Driver(PoolSpec("pool", "model", policy="dynamo_kv", profile=PROFILE))
    driver.add("a", "b")
    # 8 blocks of 64 tokens are 32 of 16, and half a block more; 6 of them are common.
    common, own = chain("common", blocks_each=6), (9, 10)
    first = driver.dispatched(blocks=common + own, prompt_tokens=544)
    driver.first_token(first.attempt)
    rest = driver.dispatched(blocks=(*common, 11, 12), prompt_tokens=544)
    driver.first_token(rest.attempt)
    assert (first.replica, rest.replica) == ("a", "a")
    # 34 blocks each, of which 24 are the same.
    driver.dispatched(id="it", blocks=(*common, 13, 14), prompt_tokens=544)
    explanation = driver.dispatcher.decisions.explain("it")
    assert explanation is not None
    costs = {each.replica: each.cost for each in explanation.attempts[0].candidates}
    assert costs == {
        "a": (34 - 24) + (34 + 34 - 24) + (34 - 24),
        "b": 34 + 0 + 34,
    }


def test_overlap_weight_and_prefill_scale():
    assert Bench("dynamo_kv:overlap_weight=4", **STATES).costs(1600) == {
        "a": max(110 - 160, 0) + 100 + 100,
        "b": 100 + 20 + 100,
        "c": max(300 - 320, 0) + 200 + 100,
    }
    assert Bench("dynamo_kv:prefill_scale=2,block_tokens=32", **STATES).costs(1600) == {
        "a": 2 * (5 + 50 - 20) + 50 + 50,
        "b": 2 * 50 + 10 + 50,
        "c": 2 * (100 + 50 - 40) + 100 + 50,
    }


def test_the_credit_may_exceed_the_work():
    bench = Bench("dynamo_kv:overlap_weight=8,below_zero=1", **STATES)
    assert bench.costs(1600) == {
        "a": (110 - 320) + 100 + 100,
        "b": 100 + 20 + 100,
        "c": (300 - 640) + 200 + 100,
    }
    values = {name: term.value for name, term in bench.terms("c", 1600).items()}
    assert values == {"to prefill": -340.0, "to hold": 300.0, "drawn": 0.0}


def test_the_words_and_the_terms():
    bench = Bench("dynamo_kv", **STATES)
    assert bench.reason(1600) == (
        "replica b: 220 blocks to prefill and to hold, prefill 1,600 of 1,600 tokens; "
        "50 blocks fewer than a"
    )
    terms = bench.terms("a", 1600)
    assert {name: term.value for name, term in terms.items()} == {
        "to prefill": 70.0,
        "to hold": 200.0,
        "drawn": 0.0,
    }
    assert {term.unit for term in terms.values()} == {"blocks"}


def test_a_started_block_counts_as_new():
    assert Bench("dynamo_kv", only=State()).costs(17) == {"only": 17 / 16 + 2}


def test_a_temperature_draws_by_the_softmax_of_normalised_costs():
    bench = Bench("dynamo_kv:temperature=0.5", **STATES)
    counts = Counter(bench.pick(1600) for _ in range(4000))
    costs = {"a": 270, "b": 220, "c": 520}
    weights = {name: exp(-(cost - 220) / (300 * 0.5)) for name, cost in costs.items()}
    for name, weight in weights.items():
        share = weight / sum(weights.values())
        assert counts[name] / 4000 == pytest.approx(share, abs=0.03)
    drawn = next(reason for _ in range(50) if "replica a" in (reason := bench.reason(1600)))
    assert drawn == (
        "replica a: 270 blocks to prefill and to hold, prefill 960 of 1,600 tokens; "
        "drawn at random by its odds"
    )


def test_a_temperature_with_equal_costs_is_even():
    bench = Bench("dynamo_kv:temperature=1", a=State(), b=State())
    counts = Counter(bench.pick(1600) for _ in range(400))
    assert counts["a"] == pytest.approx(200, abs=40)


def test_lmetric_multiplies():
    bench = Bench("dynamo_lmetric", **STATES)
    assert bench.costs(1600) == {
        "a": (110 - 40) * (100 + 100 + 1),
        "b": 100 * (20 + 100 + 1),
        "c": (300 - 80) * (200 + 100 + 1),
    }
    assert Bench("dynamo_lmetric:overlap_weight=2", **STATES).costs(1600)["a"] == 30 * 201
    assert bench.reason(1600) == (
        "replica b: 1.21e+04 blocks to prefill times to hold, prefill 1,600 of 1,600 tokens; "
        "1,970 blocks² fewer than a"
    )
