"""SMG's least_load: (queued + sent since) / rate + 0.15 * k / (1 - k)."""

import pytest

from tests.unit.core.policies.bench import Bench, State, scraped


def known(queue: float | None, kv: float | None, in_flight: int = 0) -> State:
    return State(in_flight, report=scraped(queue, kv), scraped_s=1.0)


def test_the_seconds():
    bench = Bench("smg_least_load", a=known(2, 0.5), b=known(0, 0.75), c=known(1, None))
    assert bench.costs(640) == pytest.approx(
        {"a": 2 * 1024 / 2000 + 0.15, "b": 0.15 * 3, "c": 1024 / 2000}
    )
    assert bench.reason(640) == (
        "replica b: 450 ms, prefill 640 of 640 tokens; 62.0 ms less than c"
    )
    assert Bench("smg_least_load", a=known(0, 1.0)).costs(640) == pytest.approx(
        {"a": 0.15 * 0.999 / 0.001}
    )
    tuned = Bench("smg_least_load:kv_weight=1,tokens_per_s=100,mean_tokens=50", a=known(2, 0.5))
    assert tuned.costs(640) == pytest.approx({"a": 100 / 100 + 1.0})


def test_what_was_sent_counts_until_the_next_scrape():
    bench = Bench("smg_least_load", a=known(0, 0.0), b=known(0, 0.0))
    assert [bench.pick(1000) for _ in range(3)] == ["a", "b", "a"]
    assert bench.costs(1000) == pytest.approx({"a": 2000 / 2000, "b": 1000 / 2000})
    bench.replicas[0].scraped_s = 2.0
    assert bench.costs(1000) == pytest.approx({"a": 0.0, "b": 1000 / 2000})
    assert bench.pick(1000) == "a"
    assert bench.costs(1000)["a"] == pytest.approx(1000 / 2000)
    bench.policy.left("a")
    assert bench.costs(1000)["a"] == 0.0


def test_while_nobody_was_scraped_it_is_the_shortest_queue():
    bench = Bench("smg_least_load", a=State(3), b=State(1), c=State(2))
    assert bench.costs(640) == pytest.approx({"b": 0.512, "c": 1.024, "a": 1.536})


def test_who_was_not_scraped_costs_as_the_best_of_those_that_were():
    bench = Bench("smg_least_load", a=known(1, 0.0), b=known(3, 0.0), c=State(2), d=State(0))
    assert bench.costs(640) == pytest.approx(
        {"a": 0.512, "b": 1.536, "c": 0.512 + 1.024, "d": 0.512}
    )


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ValueError, match="policy 'smg_least_load': tokens_per_s is 0"):
        Bench("smg_least_load:tokens_per_s=0")
