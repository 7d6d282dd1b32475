"""What is counted for one attempt, while it streams and when it ends."""

import pytest

from headrace.core.events import Progress
from headrace.core.model import Endpoint, Outcome, Usage
from headrace.gateway.metrics.series import SeriesKey
from headrace.gateway.telemetry import Telemetry, TelemetrySettings

KEY = SeriesKey("m", "p", "p-0")


@pytest.fixture
def telemetry():
    return Telemetry(TelemetrySettings(), lambda: 0.0)


def begin(telemetry, *, attempt=1, received_s=100.0, streamed=True, estimate=0, **rest):
    return telemetry.begin(
        *KEY,
        attempt=attempt,
        received_s=received_s,
        streamed=streamed,
        endpoint=rest.get("endpoint", Endpoint.CHAT),
        input_tokens_estimate=estimate,
        sequences=rest.get("sequences", 1),
    )


def stream(telemetry, chunks, usage, outcome=Outcome.COMPLETED, **rest):
    meter = begin(telemetry, **rest)
    for index in range(chunks):
        meter.content(101.0 + index)
    meter.finish(outcome, usage, 101.0 + chunks)
    return meter


def test_ttft_counts_from_the_request_received_to_the_first_content(telemetry):
    meter = begin(telemetry, received_s=100.0)
    meter.content(100.7)
    meter.content(109.0)
    series = telemetry.series.get(KEY)
    assert series.ttft.count == 1
    assert series.ttft.total == pytest.approx(0.7)


def test_itl_is_one_gap_per_chunk_and_zero_between_chunks_sent_together(telemetry):
    meter = begin(telemetry)
    meter.content(101.0)
    meter.content(101.030)
    meter.content(101.080, chunks=3)
    itl = telemetry.series.get(KEY).itl
    assert itl.count == 4
    assert itl.total == pytest.approx(0.080)
    assert itl.counts[0] == 2


def test_tpot_is_time_between_first_and_last_content_over_tokens_after_the_first(telemetry):
    meter = begin(telemetry)
    meter.content(101.0)
    meter.content(102.0)
    meter.finish(Outcome.COMPLETED, Usage(10, 11), 107.0)
    tpot = telemetry.series.get(KEY).tpot
    assert tpot.count == 1
    assert tpot.total == pytest.approx(0.1)


def test_choices_share_the_tokens_and_their_gaps_are_no_itl(telemetry):
    """Of four answers of 11 tokens each has 10 in a second."""
    meter = begin(telemetry, sequences=4)
    for number in range(44):
        meter.content(101.0 + number // 4 * 0.1)
    meter.finish(Outcome.COMPLETED, Usage(10, 44), 102.0)
    series = telemetry.series.get(KEY)
    assert series.tpot.total == pytest.approx(0.1)
    assert series.ttft.count == 1
    assert series.itl.count == 0


@pytest.mark.parametrize(
    ("chunks", "usage", "outcome"),
    [
        (1, Usage(10, 40), Outcome.COMPLETED),  # all in one chunk: its pace is unknown
        (3, None, Outcome.COMPLETED),  # no count by the engine
        (3, Usage(10, 3), Outcome.ABORTED),  # cut short
    ],
)
def test_no_tpot_without_a_pace(telemetry, chunks, usage, outcome):
    stream(telemetry, chunks, usage, outcome)
    assert telemetry.series.get(KEY).tpot.count == 0


def test_a_request_that_is_not_streamed_counts_tokens_but_no_latencies(telemetry):
    meter = begin(telemetry, streamed=False)
    meter.content(101.0)
    meter.finish(Outcome.COMPLETED, Usage(30, 5, 20), 102.0)
    series = telemetry.series.get(KEY)
    assert (series.ttft.count, series.itl.count, series.tpot.count) == (0, 0, 0)
    assert (series.input_tokens, series.output_tokens.value, series.cached_tokens) == (30, 5, 20)


def test_output_is_counted_while_it_streams_and_completed_by_usage(telemetry):
    meter = begin(telemetry)
    for index in range(40):
        meter.content(101.0 + index / 10)
    assert telemetry.tick(105.0) == [Progress(1, 40)]
    series = telemetry.series.get(KEY)
    assert series.output_tokens.value == 40
    assert telemetry.tick(105.25) == []
    meter.finish(Outcome.COMPLETED, Usage(12, 41), 106.0)
    assert series.output_tokens.value == 41
    assert series.input_tokens == 12


def test_a_read_of_the_counters_in_between_hides_no_progress_from_the_core(telemetry):
    begin(telemetry).content(101.0)
    telemetry.flush(101.1)
    assert telemetry.tick(101.2) == [Progress(1, 1)]


def test_chunks_of_several_tokens_are_scaled_by_what_the_pool_taught(telemetry):
    for _ in range(20):
        stream(telemetry, 10, Usage(1, 31))
    before = telemetry.series.get(KEY).output_tokens.value
    meter = begin(telemetry)
    meter.content(200.0, chunks=7)
    telemetry.flush(200.1)
    assert telemetry.series.get(KEY).output_tokens.value - before == 21


def test_running_usage_is_exact_and_chunks_after_it_are_added(telemetry):
    meter = begin(telemetry)
    meter.content(101.0)
    meter.running_usage(8)
    meter.content(101.1)
    assert meter.estimated_output_tokens == 9


def test_usage_before_the_first_content_adds_no_token(telemetry):
    meter = begin(telemetry)
    meter.running_usage(1)
    meter.content(101.0)
    assert meter.estimated_output_tokens == 1


def test_an_overshoot_is_taken_off_the_next_tokens_never_off_the_counter(telemetry):
    series = telemetry.series.get(KEY)
    meter = begin(telemetry)
    meter.content(101.0, chunks=10)
    telemetry.flush(101.5)
    meter.finish(Outcome.COMPLETED, Usage(1, 7), 102.0)
    assert (series.output_tokens.value, series.output_tokens.debt) == (10, 3)
    begin(telemetry, streamed=False).finish(Outcome.COMPLETED, Usage(1, 5), 103.0)
    assert (series.output_tokens.value, series.output_tokens.debt) == (12, 0)


def test_an_aborted_stream_counts_what_was_relayed_under_its_own_outcome(telemetry):
    stream(telemetry, 17, None, Outcome.ABORTED, estimate=120)
    series = telemetry.series.get(KEY)
    assert series.output_tokens.value == series.aborted_output_tokens == 17
    assert series.input_tokens == 120
    assert series.requests == {(Endpoint.CHAT, Outcome.ABORTED): 1}
    assert series.usage_missing == {}


def test_partial_usage_of_an_aborted_stream_does_not_lower_what_was_relayed(telemetry):
    stream(telemetry, 17, Usage(90, 1), Outcome.ABORTED, estimate=120)
    series = telemetry.series.get(KEY)
    assert series.output_tokens.value == 17
    assert series.input_tokens == 90


def test_an_abort_before_the_first_content_counts_no_tokens(telemetry):
    stream(telemetry, 0, None, Outcome.ABORTED, estimate=120)
    series = telemetry.series.get(KEY)
    assert (series.input_tokens, series.output_tokens.value) == (0, 0)


def test_end_tokens_do_not_make_an_abort_look_longer_than_it_was(telemetry):
    for _ in range(50):
        stream(telemetry, 20, Usage(1, 21))  # 20 chunks and an end-of-sequence token
    before = telemetry.series.get(KEY).output_tokens.value
    stream(telemetry, 500, None, Outcome.ABORTED)
    assert telemetry.series.get(KEY).output_tokens.value - before == 500


def test_completed_without_usage_is_estimated_and_said_so(telemetry):
    stream(telemetry, 9, None)
    series = telemetry.series.get(KEY)
    assert series.output_tokens.value == 9
    assert series.usage_missing == {Endpoint.CHAT: 1}


def test_an_endpoint_that_never_tells_usage_is_not_missing_it(telemetry):
    stream(telemetry, 0, None, endpoint=Endpoint.OTHER, streamed=False)
    assert telemetry.series.get(KEY).usage_missing == {}


def test_a_retried_attempt_is_a_retry_and_the_request_ends_once(telemetry):
    begin(telemetry).finish(Outcome.UNAVAILABLE, None, 101.0, retried=True)
    begin(telemetry, attempt=2).finish(Outcome.COMPLETED, Usage(1, 1), 102.0)
    series = telemetry.series.get(KEY)
    assert series.retries == {Outcome.UNAVAILABLE: 1}
    assert series.requests == {(Endpoint.CHAT, Outcome.COMPLETED): 1}
    assert series.dispatched == 2


def test_the_second_end_of_an_attempt_is_a_no_op(telemetry):
    meter = stream(telemetry, 3, Usage(5, 3))
    meter.finish(Outcome.ABORTED, None, 110.0)
    series = telemetry.series.get(KEY)
    assert series.output_tokens.value == 3
    assert series.in_flight == 0
    assert sum(series.requests.values()) == 1
    assert telemetry.tick(111.0) == []
