"""Whatever streams do: counters never fall, and end at the engines' own totals."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.model import Endpoint, Outcome, Usage
from headrace.gateway.metrics.series import SeriesKey
from headrace.gateway.telemetry import Telemetry, TelemetrySettings

STREAMS = st.lists(
    st.tuples(
        st.integers(0, 30),  # chunks
        st.one_of(st.none(), st.integers(0, 90)),  # output tokens in usage
        st.sampled_from([Outcome.COMPLETED, Outcome.ABORTED, Outcome.BROKEN]),
    ),
    min_size=1,
    max_size=12,
)


@given(STREAMS, st.randoms(use_true_random=False))
def test_counters_rise_only_and_settle_at_usage(streams, rng):
    telemetry = Telemetry(TelemetrySettings(), lambda: 0.0)
    counter = telemetry.series.get(SeriesKey("m", "p", "r")).output_tokens
    running = []
    for number, (chunks, tokens, outcome) in enumerate(streams):
        meter = telemetry.begin(
            "m",
            "p",
            "r",
            attempt=number,
            received_s=0.0,
            streamed=True,
            endpoint=Endpoint.CHAT,
        )
        running.append([meter, chunks, tokens, outcome])
    settled = 0
    seen = 0
    now = 0.0
    while running:
        now += 0.1
        state = rng.choice(running)
        meter, chunks, tokens, outcome = state
        if chunks:
            state[1] -= 1
            meter.content(now)
        else:
            running.remove(state)
            usage = None if tokens is None else Usage(1, tokens)
            before = meter.chunks
            relayed = meter._ratio.at_least(before)
            if outcome is Outcome.COMPLETED and tokens is not None:
                settled += tokens
            else:
                settled += max(relayed, tokens or 0)
            meter.finish(outcome, usage, now)
        if rng.random() < 0.5:
            telemetry.tick(now)
        assert counter.value >= seen
        seen = counter.value
    telemetry.flush(now)
    assert counter.value - counter.debt == settled
