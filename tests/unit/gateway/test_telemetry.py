"""What `/metrics` shows: sources, staleness, arrivals and departures."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from headrace.core.model import Endpoint, Outcome, Usage
from headrace.engines.reading import EngineReading
from headrace.gateway.metrics.catalogue import METRICS
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.metrics.external import PushedReport
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.fleet_parts import add_replica, make_fleet, remove_replica, report

NOW = 1000.0
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.fixture
def fleet():
    return make_fleet(p=("m", 2))


def make(fleet, **settings):
    return Telemetry(TelemetrySettings(**settings), lambda: NOW, fleet)


def read(telemetry, now=NOW):
    """Samples as a scraper sees them: `{(name, label values sorted by label name): value}`."""
    body, _ = render(take_snapshot(telemetry, now), "")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


def complete(telemetry, replica="p-0", usage=None, now=NOW):
    meter = telemetry.begin(
        "m",
        "p",
        replica,
        attempt=1,
        received_s=now - 2,
        streamed=True,
        endpoint=Endpoint.CHAT,
    )
    meter.content(now - 1)
    meter.content(now)
    meter.finish(Outcome.COMPLETED, usage or Usage(7, 3, 4), now)


# ---------------------------------------------------------------- names


def test_the_names_users_know_are_all_there_with_their_labels(fleet):
    telemetry = make(fleet)
    report(fleet.replicas["p-0"], NOW, queue_depth=1, running=2, kv_usage_ratio=0.25)
    complete(telemetry)
    samples = read(telemetry)
    for name in (
        "llm_ttft_seconds_count",
        "llm_ttft_seconds_sum",
        "llm_tpot_seconds_count",
        "llm_itl_seconds_count",
        "llm_ttft_p95_seconds",
        "llm_tpot_p95_seconds",
        "llm_kv_cache_usage_ratio",
        "llm_queue_depth",
        "llm_requests_running",
        "llm_tokens_per_second",
        "llm_cached_input_tokens_total",
    ):
        assert (name, "m", "p", "p-0") in samples
    assert samples["llm_tokens_processed_total", "m", "p", "p-0", "input"] == 7
    assert samples["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 3
    assert samples["llm_tpot_seconds_sum", "m", "p", "p-0"] == pytest.approx(0.5)


def test_every_metric_of_the_table_has_the_labels_it_declares(fleet):
    telemetry = make(fleet)
    complete(telemetry)
    telemetry.reject("model_not_found", "nobody")
    for metric in METRICS:
        for labels, _ in metric.read(telemetry, NOW):
            assert len(labels) == len(metric.labels), metric.name


def test_both_formats_tell_the_same(fleet):
    telemetry = make(fleet)
    complete(telemetry)
    snapshot = take_snapshot(telemetry, NOW)
    text, text_type = render(snapshot, "text/plain;version=0.0.4")
    openmetrics, openmetrics_type = render(snapshot, OPENMETRICS)
    assert text_type.startswith("text/plain; version=0.0.4")
    assert openmetrics_type.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith(b"# EOF\n")

    def values(families):
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.startswith("process_")
        }

    assert values(parse_text(text.decode())) == values(parse_openmetrics(openmetrics.decode()))


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "nonsense;;=",
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;q=0.2,text/plain;version=0.0.4;q=0.5",
        "application/openmetrics-text;q=x",
    ],
)
def test_an_accept_header_that_says_nothing_usable_gets_the_text_format(fleet, accept):
    body, content_type = render(take_snapshot(make(fleet), NOW), accept)
    assert content_type.startswith("text/plain; version=0.0.4")
    assert b"llm_queue_depth{" in body


def test_prometheus_gets_openmetrics(fleet):
    accept = (
        "application/openmetrics-text;version=1.0.0;q=0.5,"
        "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    )
    _, content_type = render(take_snapshot(make(fleet), NOW), accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")


def test_label_values_are_escaped(fleet):
    telemetry = make(fleet)
    add_replica(fleet, fleet.pools["p"], 'a"b\\c\nd')
    assert ("llm_queue_depth", "m", "p", 'a"b\\c\nd') in read(telemetry)


# ---------------------------------------------------------------- sources of gauges


def test_a_replica_is_at_zero_before_its_first_request(fleet):
    samples = read(make(fleet))
    assert samples["llm_tokens_processed_total", "m", "p", "p-1", "output"] == 0
    assert samples["llm_ttft_seconds_count", "m", "p", "p-1"] == 0
    assert samples["llm_queue_depth", "m", "p", "p-1"] == 0


def test_p95_gauges_are_absent_without_a_sample_in_the_last_minute(fleet):
    telemetry = make(fleet)
    assert ("llm_ttft_p95_seconds", "m", "p", "p-0") not in read(telemetry)
    complete(telemetry)
    samples = read(telemetry)
    assert samples["llm_ttft_p95_seconds", "m", "p", "p-0"] == pytest.approx(1.0, rel=0.01)
    assert samples["llm_tpot_p95_seconds", "m", "p", "p-0"] == pytest.approx(0.5, rel=0.01)
    assert ("llm_ttft_p95_seconds", "m", "p", "p-0") not in read(telemetry, NOW + 61)


def test_a_fresh_scrape_is_the_source_of_the_gauges(fleet):
    replica = fleet.replicas["p-0"]
    replica.in_flight = 9
    report(replica, NOW, queue_depth=4, running=3, kv_usage_ratio=0.5)
    telemetry = make(fleet)
    samples = read(telemetry, NOW + 4)
    assert samples["llm_queue_depth", "m", "p", "p-0"] == 4
    assert samples["llm_requests_running", "m", "p", "p-0"] == 3
    assert samples["llm_kv_cache_usage_ratio", "m", "p", "p-0"] == 0.5
    assert samples["headrace_engine_gauges_estimated", "p", "p-0"] == 0
    assert samples["headrace_scrape_age_seconds", "p", "p-0"] == 4


def test_a_stale_scrape_gives_way_to_the_gateways_own_estimate(fleet):
    replica = fleet.replicas["p-0"]
    report(
        replica,
        NOW,
        queue_depth=40,
        running=3,
        kv_usage_ratio=0.9,
        kv_capacity_tokens=1000,
    )
    replica.in_flight, replica.context_tokens, replica.max_sequences = 10, 300, 8
    samples = read(make(fleet), NOW + 6)
    assert samples["llm_queue_depth", "m", "p", "p-0"] == 2
    assert samples["llm_requests_running", "m", "p", "p-0"] == 8
    assert samples["llm_kv_cache_usage_ratio", "m", "p", "p-0"] == pytest.approx(0.3)
    assert samples["headrace_engine_gauges_estimated", "p", "p-0"] == 1


def test_what_an_engine_does_not_tell_is_estimated_and_an_unknown_kv_size_is_not_made_up(fleet):
    replica = fleet.replicas["p-0"]
    replica.in_flight = 3
    report(replica, NOW)
    samples = read(make(fleet))
    assert samples["llm_requests_running", "m", "p", "p-0"] == 3
    assert samples["llm_queue_depth", "m", "p", "p-0"] == 0
    assert samples["headrace_engine_gauges_estimated", "p", "p-0"] == 1
    assert ("llm_kv_cache_usage_ratio", "m", "p", "p-0") not in samples


def test_a_gateway_without_engine_gauges_exports_only_its_own_facts(fleet):
    telemetry = make(fleet, engine_gauges=False)
    report(fleet.replicas["p-0"], NOW, queue_depth=4, running=3, kv_usage_ratio=0.5)
    telemetry.held = lambda: {"m": 2}
    complete(telemetry)
    samples = read(telemetry)
    queue = {key: value for key, value in samples.items() if key[0] == "llm_queue_depth"}
    assert queue == {("llm_queue_depth", "m", "", ""): 2}
    assert not any(
        name in {"llm_requests_running", "llm_kv_cache_usage_ratio"} for name, *_ in samples
    )
    assert samples["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 3


def test_queue_depth_sums_to_waiting_in_engines_and_held_here(fleet):
    telemetry = make(fleet)
    for name, depth in (("p-0", 4), ("p-1", 1)):
        report(fleet.replicas[name], NOW, queue_depth=depth)
    telemetry.held = lambda: {"m": 2}
    samples = read(telemetry)
    assert sum(value for (name, *_), value in samples.items() if name == "llm_queue_depth") == 7


# ---------------------------------------------------------------- arrivals and departures


def test_a_departed_replicas_series_vanish_at_once_and_the_others_stay(fleet):
    telemetry = make(fleet)
    complete(telemetry, "p-0")
    complete(telemetry, "p-1")
    remove_replica(fleet, "p-0")
    telemetry.forget("p-0")
    samples = read(telemetry)
    assert not [key for key in samples if "p-0" in key]
    assert samples["llm_tokens_processed_total", "m", "p", "p-1", "output"] == 3


def test_a_replicas_series_stay_until_its_last_stream_has_ended(fleet):
    telemetry = make(fleet)
    meter = telemetry.begin(
        "m", "p", "p-0", attempt=1, received_s=NOW, streamed=True, endpoint=Endpoint.CHAT
    )
    remove_replica(fleet, "p-0")
    telemetry.forget("p-0")
    meter.content(NOW, chunks=3)
    assert read(telemetry)["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 3
    meter.finish(Outcome.BROKEN, None, NOW)
    telemetry.tick(NOW)
    assert not [key for key in read(telemetry) if "p-0" in key]


def test_a_replica_back_under_its_name_starts_at_zero(fleet):
    telemetry = make(fleet)
    complete(telemetry, "p-0")
    remove_replica(fleet, "p-0")
    telemetry.forget("p-0")
    add_replica(fleet, fleet.pools["p"], "p-0")
    assert read(telemetry)["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 0


def test_series_are_bounded_and_sums_stay_true(fleet):
    telemetry = make(fleet, max_series=3)
    for index in range(10):
        complete(telemetry, f"x-{index}")
    samples = read(telemetry)
    output = [
        value
        for (name, *labels), value in samples.items()
        if name == "llm_tokens_processed_total" and labels[-1] == "output"
    ]
    assert len(output) <= 4
    assert sum(output) == 30
    assert samples["headrace_series_overflow_total",] > 0


def test_rejects_of_names_that_clients_made_up_share_one_label(fleet):
    telemetry = make(fleet)
    for index in range(50):
        telemetry.reject("model_not_found", f"made-up-{index}")
    telemetry.reject("overloaded", "m")
    samples = read(telemetry)
    rejects = {k: v for k, v in samples.items() if k[0] == "headrace_rejects_total"}
    assert rejects == {
        ("headrace_rejects_total", "", "model_not_found"): 50,
        ("headrace_rejects_total", "m", "overloaded"): 1,
    }


# ---------------------------------------------------------------- external traffic


def test_tokens_of_external_replicas_come_from_their_engines_counters(fleet):
    telemetry = make(fleet, external_pools=frozenset({"p"}))
    telemetry.read("p-0", EngineReading(input_tokens_total=900, output_tokens_total=100), NOW)
    telemetry.read("p-0", EngineReading(input_tokens_total=950, output_tokens_total=130), NOW + 1)
    samples = read(telemetry, NOW + 1)
    assert samples["llm_tokens_processed_total", "m", "p", "p-0", "input"] == 50
    assert samples["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 30


def test_the_counters_of_a_relayed_replica_are_not_added_to_what_was_relayed(fleet):
    telemetry = make(fleet)
    for total in (100, 130):
        telemetry.read("p-0", EngineReading(output_tokens_total=total), NOW)
    complete(telemetry)
    assert read(telemetry)["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 3


def test_a_push_counts_for_external_replicas_only(fleet):
    pushed = PushedReport("m", input_tokens=5, output_tokens=6, ttft_s=0.2, tpot_s=0.01)
    replica = fleet.replicas["p-0"]
    relayed = make(fleet)
    unused = relayed.push(pushed, replica, NOW)
    assert unused == ["inputTokens", "outputTokens", "ttftMs", "tpotMs"]
    assert read(relayed)["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 0
    external = make(fleet, external_pools=frozenset({"p"}))
    assert external.push(pushed, replica, NOW) == []
    samples = read(external)
    assert samples["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 6
    assert samples["llm_ttft_seconds_sum", "m", "p", "p-0"] == pytest.approx(0.2)
    assert samples["llm_tpot_seconds_sum", "m", "p", "p-0"] == pytest.approx(0.01)


def test_pushed_tokens_are_not_added_to_scraped_ones(fleet):
    telemetry = make(fleet, external_pools=frozenset({"p"}))
    telemetry.read("p-0", EngineReading(output_tokens_total=100), NOW)
    pushed = PushedReport("m", output_tokens=6, ttft_s=0.2)
    assert telemetry.push(pushed, fleet.replicas["p-0"], NOW) == ["outputTokens"]
    samples = read(telemetry)
    assert samples["llm_tokens_processed_total", "m", "p", "p-0", "output"] == 0
    assert samples["llm_ttft_seconds_count", "m", "p", "p-0"] == 1


def test_pushed_gauges_stand_in_while_no_scrape_is_fresh(fleet):
    telemetry = make(fleet)
    replica = fleet.replicas["p-0"]
    telemetry.push(PushedReport("m", kv_usage_ratio=0.7, queue_depth=5), replica, NOW)
    samples = read(telemetry, NOW + 1)
    assert samples["llm_queue_depth", "m", "p", "p-0"] == 5
    assert samples["llm_kv_cache_usage_ratio", "m", "p", "p-0"] == 0.7
    report(replica, NOW + 1, queue_depth=2, kv_usage_ratio=0.1)
    samples = read(telemetry, NOW + 2)
    assert samples["llm_queue_depth", "m", "p", "p-0"] == 2
    assert samples["llm_kv_cache_usage_ratio", "m", "p", "p-0"] == 0.1
    assert read(telemetry, NOW + 60)["llm_queue_depth", "m", "p", "p-0"] == 0
