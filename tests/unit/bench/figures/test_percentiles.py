"""Percentiles are those of numpy's default, for ranked values and for counted gaps alike."""

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bench.figures.percentiles import GapCounts, distribution, percentile

MICROSECOND = 1e-6
times = st.lists(st.floats(0.0, 2.0, width=32), min_size=1, max_size=60)


def test_between_ranks_it_is_linear():
    assert percentile([1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 4.0], 0.75) == 3.0
    assert percentile([7.0], 0.99) == 7.0


def test_the_figures_of_a_known_set():
    found = distribution(float(each) for each in range(101))
    assert (found.count, found.mean, found.max) == (101, 50.0, 100.0)
    assert (found.p50, found.p90, found.p95, found.p99) == (50.0, 90.0, 95.0, 99.0)


def test_nothing_gives_zeros():
    assert distribution([]).count == 0
    assert GapCounts().distribution().count == 0
    assert GapCounts().spread(10) == []


@settings(max_examples=60, deadline=None)
@given(times)
def test_counted_gaps_give_what_ranked_ones_do(values):
    counts = GapCounts()
    counts.add(array("f", values))
    found, exact = counts.distribution(), distribution(values)
    assert found.count == exact.count
    for name in ("mean", "p50", "p90", "p95", "p99", "max"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), abs=MICROSECOND)


@settings(max_examples=30, deadline=None)
@given(times, times)
def test_two_counts_together_are_one_count_of_both(first, second):
    one, both = GapCounts(), GapCounts()
    one.add(first)
    other = GapCounts()
    other.add(second)
    one.merge(other)
    both.add([*first, *second])
    assert one.distribution() == both.distribution()


def test_the_spread_runs_from_the_shortest_to_the_longest():
    counts = GapCounts()
    counts.add([0.01] * 99 + [0.5])
    spread = counts.spread(101)
    assert spread == sorted(spread)
    assert spread[0] == pytest.approx(0.01, abs=MICROSECOND)
    assert spread[-1] == pytest.approx(0.5, abs=MICROSECOND)
    assert spread[90] == pytest.approx(0.01, abs=MICROSECOND)
