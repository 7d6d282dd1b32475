"""Histograms, windows, ratios and totals, each by itself."""

import random
from itertools import accumulate, pairwise
from math import ceil

import pytest

from headrace.engines.reading import EngineReading
from headrace.gateway.metrics.external import EngineTotals
from headrace.gateway.metrics.histogram import (
    ITL_BOUNDS_S,
    TPOT_BOUNDS_S,
    TTFT_BOUNDS_S,
    Histogram,
)
from headrace.gateway.metrics.series import OVERFLOW, SeriesKey, SeriesTable
from headrace.gateway.metrics.tokens import ChunkRatio
from headrace.gateway.metrics.windows import RollingQuantile, RollingRate


def test_a_value_on_a_bound_belongs_below_it():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.total == 7.5


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_gaps_that_are_counted_together_are_counted_as_one_by_one(spread):
    rng = random.Random(7)
    gaps = [rng.lognormvariate(-4.5, spread) for _ in range(500)] + [*ITL_BOUNDS_S, 0.0, 99.0]
    together, one_by_one = Histogram(ITL_BOUNDS_S), Histogram(ITL_BOUNDS_S)
    times = list(accumulate(gaps))
    for before, now in pairwise([0.0, *times]):
        one_by_one.observe(now - before)
    last = 0.0
    for start in range(0, len(times), 25):
        last = together.count_gaps(times[start : start + 25], last)
    assert last == times[-1]
    assert together.counts == one_by_one.counts
    assert together.total == pytest.approx(one_by_one.total)
    assert together.count_gaps([], last) == last
    assert together.counts == one_by_one.counts


def test_a_gap_that_is_a_bound_belongs_below_it_wherever_the_one_before_it_was():
    gaps = [2.0, 0.5, 1.0, 4.0, 2.0, 1.0, 0.25, 4.0]
    histogram = Histogram((1.0, 2.0))
    histogram.count_gaps(list(accumulate(gaps)), 0.0)
    assert histogram.counts == [4, 2, 2]


@pytest.mark.parametrize("bounds", [TTFT_BOUNDS_S, TPOT_BOUNDS_S, ITL_BOUNDS_S])
def test_buckets_ascend_by_no_more_than_two_and_a_half_times(bounds):
    assert all(low < high <= 2.5 * low for low, high in pairwise(bounds))


def test_tpot_is_told_apart_from_one_millisecond_on():
    assert TPOT_BOUNDS_S[0] == 0.001


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_the_rolling_quantile_is_within_one_percent_of_the_sample(spread):
    rng = random.Random(7)
    samples = [rng.lognormvariate(-2.0, spread) for _ in range(997)]
    window = RollingQuantile()
    for index, sample in enumerate(samples):
        window.observe(sample, 1000.0 + index * 50 / 997)
    for share in (0.01, 0.5, 0.95, 1.0):
        true = sorted(samples)[ceil(share * len(samples)) - 1]
        assert window.quantile(share, 1050.0) == pytest.approx(true, rel=0.01)


def test_the_rolling_quantile_forgets_after_its_window_and_has_none_without_samples():
    window = RollingQuantile(60.0)
    assert window.quantile(0.95, 10.0) is None
    window.observe(5.0, 10.0)
    assert window.quantile(0.95, 60.0) == pytest.approx(5.0, rel=0.01)
    window.observe(0.1, 71.0)
    assert window.quantile(0.95, 71.0) == pytest.approx(0.1, rel=0.01)
    assert window.quantile(0.95, 200.0) is None


def test_the_rolling_quantile_takes_values_out_of_range_as_its_ends():
    window = RollingQuantile()
    window.observe(0.0, 1.0)
    assert window.quantile(1.0, 1.0) == pytest.approx(1e-5, rel=0.01)
    window.observe(1e9, 1.0)
    assert window.quantile(1.0, 1.0) == pytest.approx(3 * 3600, rel=0.01)


def test_the_rate_is_the_mean_of_the_last_whole_seconds():
    rate = RollingRate(10)
    for tenth in range(400):  # 40 s of 5 per second
        if tenth % 2:
            rate.add(1, 100 + tenth / 10)
    assert rate.per_second(139.95) == pytest.approx(5.0)
    assert rate.per_second(145.0) == pytest.approx(2.5)
    assert rate.per_second(160.0) == 0.0


@pytest.mark.parametrize(
    ("streams", "ratio"),
    [
        ([], 1.0),
        ([(50, 50), (50, 51), (20, 21)], 1.0),  # with and without an end token
        ([(10, 31)] * 5, 3.0),  # drafts accepted three at a time
        ([(100, 50)] * 5, 0.5),  # an engine that splits tokens into two deltas
        ([(300, 301), (7, 40)] * 20, 1.0),  # tool calls between plain text
        ([(0, 5), (5, 0)], 1.0),  # nothing to learn from
    ],
)
def test_tokens_per_chunk(streams, ratio):
    learned = ChunkRatio()
    for chunks, tokens in streams:
        learned.learn(chunks, tokens)
    assert learned.value == pytest.approx(ratio)


def test_an_estimate_is_rounded_down_while_running_and_covers_what_was_relayed_at_the_end():
    half = ChunkRatio()
    half.learn(100, 50)
    assert (half.at_most(3), half.at_least(3)) == (1, 2)
    more = ChunkRatio()
    more.learn(10, 26)
    assert (more.at_most(3), more.at_least(3)) == (7, 7)


def test_tokens_per_chunk_follow_a_change():
    ratio = ChunkRatio()
    for _ in range(500):
        ratio.learn(100, 101)
    for _ in range(150):
        ratio.learn(100, 301)
    assert ratio.value == pytest.approx(3.0, rel=0.05)


def test_totals_start_at_the_first_reading_and_survive_a_restart():
    totals = EngineTotals()
    assert not totals.seen
    assert totals.advance(EngineReading(output_tokens_total=500.0)).output_tokens == 0
    assert totals.seen
    assert totals.advance(EngineReading(output_tokens_total=530.0)).output_tokens == 30
    assert totals.advance(EngineReading()).output_tokens == 0
    assert totals.advance(EngineReading(output_tokens_total=12.0)).output_tokens == 12


def test_series_above_the_limit_are_counted_together():
    table = SeriesTable(limit=2)
    for index in range(5):
        table.get(SeriesKey(f"m{index}", "p", "r")).input_tokens += 1
    assert len(table) == 3
    assert table.overflows == 3
    assert table.get(OVERFLOW).input_tokens == 3
    assert sum(series.input_tokens for series in table) == 5
