"""Pushed reports: what is read, refused and counted once."""

import json

import pytest

from headrace.gateway.metrics.external import PushedReport
from headrace.gateway.metrics.series import SeriesKey
from headrace.gateway.push import MAX_REPORTS, PushError, PushReceiver, SeenEvents, parse_reports
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.fleet_parts import make_fleet

CAMEL = {
    "modelId": "m",
    "inputTokens": 512,
    "outputTokens": 64,
    "ttftMs": 250,
    "tpotMs": 12.5,
    "kvCacheOccupancy": 0.5,
    "pendingQueue": 3,
    "eventId": "e1",
}
READ = PushedReport(
    "m",
    event_id="e1",
    input_tokens=512,
    output_tokens=64,
    ttft_s=0.25,
    tpot_s=0.0125,
    kv_usage_ratio=0.5,
    queue_depth=3.0,
)


def body(document):
    return json.dumps(document).encode()


def test_camel_and_snake_case_one_or_a_list():
    snake = {
        "model_id": "m",
        "input_tokens": 512,
        "output_tokens": 64,
        "ttft_ms": 250,
        "tpot_ms": 12.5,
        "kv_cache_occupancy": 0.5,
        "pending_queue": 3,
        "event_id": "e1",
    }
    assert parse_reports(body(CAMEL)) == [READ]
    assert parse_reports(body([snake, CAMEL])) == [READ, READ]


def test_null_is_not_given():
    assert parse_reports(body({"modelId": "m", "ttftMs": None})) == [PushedReport("m")]


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        ({"modelId": "m", "outputTokns": 1}, "outputTokns", "did you mean outputTokens?"),
        ({"modelId": "m", "zzz": 1}, "zzz", "known ones: modelId"),
        ({"inputTokens": 1}, "modelId", "missing"),
        ({"modelId": ""}, "modelId", "1 to 256 characters"),
        ({"modelId": "m" * 300}, "modelId", "1 to 256 characters"),
        ({"modelId": "m", "inputTokens": -1}, "inputTokens", "is -1; give a whole number"),
        ({"modelId": "m", "inputTokens": 1.5}, "inputTokens", "whole number"),
        ({"modelId": "m", "inputTokens": True}, "inputTokens", "is true; give a whole number"),
        ({"modelId": "m", "inputTokens": "7"}, "inputTokens", "whole number"),
        ({"modelId": "m", "ttftMs": -0.1}, "ttftMs", "milliseconds"),
        ({"modelId": "m", "kvCacheOccupancy": 50}, "kvCacheOccupancy", "50 % is 0.5"),
        ({"modelId": "m", "pendingQueue": []}, "pendingQueue", "number of requests"),
        ({"modelId": "m", "ttftMs": 1, "ttft_ms": 1}, "ttft_ms", "given twice"),
        ([{"modelId": "m"}, {"modelId": "m", "tpotMs": "x"}], "[1].tpotMs", 'is "x"'),
        ([{"modelId": "m"}, 7], "[1]", "must be an object"),
        (7, "", "one object or a list"),
        ([{"modelId": "m"}] * (MAX_REPORTS + 1), "", "at most 1000"),
    ],
)
def test_what_is_refused_names_field_value_and_remedy(document, field, words):
    with pytest.raises(PushError) as caught:
        parse_reports(body(document))
    assert caught.value.field == field
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"NaN",
        b'"\xff"',
        b"[" * 100_000,
        b'{"modelId":"m","ttftMs":1e999}',
        b'{"modelId":"m","ttftMs":1' + b"0" * 400 + b"}",
        b'{"modelId":"m","inputTokens":1' + b"0" * 6000 + b"}",
    ],
)
def test_hostile_bodies_are_refused_as_any_other(raw):
    with pytest.raises(PushError):
        parse_reports(raw)


# ---------------------------------------------------------------- receiving


@pytest.fixture
def telemetry():
    settings = TelemetrySettings(external_pools=frozenset({"p"}))
    return Telemetry(settings, lambda: 50.0, make_fleet(p=("m", 1), two=("n", 2)))


def output_of(telemetry, model="m", pool="p", replica="p-0"):
    return telemetry.series.get(SeriesKey(model, pool, replica)).output_tokens.value


def test_an_event_counts_once_per_sender(telemetry):
    receiver = PushReceiver(telemetry)
    assert receiver.receive(body(CAMEL), "10.1.1.1").accepted == 1
    again = receiver.receive(body([CAMEL, {**CAMEL, "eventId": "e2"}]), "10.1.1.1")
    assert (again.accepted, again.duplicates) == (1, 1)
    assert output_of(telemetry) == 128
    assert receiver.receive(body(CAMEL), "10.1.1.2").accepted == 1
    assert receiver.receive(body({**CAMEL, "sender": "a"}), "10.1.1.2").accepted == 1
    assert receiver.receive(body({**CAMEL, "sender": "a"}), "10.1.1.3").duplicates == 1
    assert telemetry.pushes == {"accepted": 4, "duplicate": 2, "invalid": 0}


def test_nothing_of_a_body_counts_when_one_report_is_wrong(telemetry):
    receiver = PushReceiver(telemetry)
    with pytest.raises(PushError):
        receiver.receive(body([CAMEL, {"modelId": "unknown"}]), "10.1.1.1")
    assert output_of(telemetry) == 0
    assert receiver.receive(body(CAMEL), "10.1.1.1").accepted == 1
    assert telemetry.pushes["invalid"] == 1


def test_an_unknown_model_is_refused_with_the_known_ones(telemetry):
    with pytest.raises(PushError, match="known models: m, n") as caught:
        PushReceiver(telemetry).receive(body({"modelId": "zebra"}), "10.1.1.1")
    assert caught.value.field == "modelId"


def test_the_replica_is_named_or_the_senders_address_tells_it(telemetry):
    receiver = PushReceiver(telemetry)
    with pytest.raises(PushError, match="one of: two-0, two-1"):
        receiver.receive(body({"modelId": "n"}), "192.168.7.7")
    with pytest.raises(PushError, match="p-0"):
        receiver.receive(body({"modelId": "n", "replica": "p-0"}), "192.168.7.7")
    assert receiver.receive(body({"modelId": "n", "replica": "two-1"}), "10.1.1.1").accepted == 1
    pushed = body({"modelId": "n", "pendingQueue": 9})
    assert receiver.receive(pushed, "10.0.0.2").accepted == 1
    queues = {
        name: telemetry.gauges_of(telemetry.fleet.replicas[name], 50.0).queue_depth
        for name in ("two-0", "two-1")
    }
    assert queues == {"two-0": 0, "two-1": 9}


def test_tokens_of_relayed_replicas_are_ignored_with_the_reason(telemetry):
    pushed = {"modelId": "n", "replica": "two-0", "outputTokens": 5, "pendingQueue": 1}
    result = PushReceiver(telemetry).receive(body(pushed), "10.1.1.1")
    assert result.accepted == 1
    assert result.ignored == [
        {
            "index": 0,
            "fields": ["outputTokens"],
            "reason": "requests to two-0 pass this gateway, which counts them itself",
        }
    ]
    assert output_of(telemetry, "n", "two", "two-0") == 0


def test_remembered_events_are_bounded_per_sender():
    seen = SeenEvents(max_senders=2, max_ids=3)
    assert all(seen.is_new("loud", str(number)) for number in range(100))
    assert not seen.is_new("loud", "99")
    assert seen.is_new("loud", "0")
    assert seen.is_new("quiet", "1")
    assert all(seen.is_new("loud", str(number)) for number in range(200, 300))
    assert not seen.is_new("quiet", "1")
    assert seen.is_new("third", "1")
    assert seen.is_new("loud", "299")
