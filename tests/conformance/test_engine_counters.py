"""Preemptions and prefix hits as `/metrics` shows them, of the captures of each dialect."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from headrace.engines.registry import dialect
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from tests.conformance.captures import metrics
from tests.fleet_parts import make_fleet

NOW = 1000.0
NAMES = ("llm_prefix_query_tokens_total", "llm_prefix_hit_tokens_total", "llm_preemptions_total")


def shown(engine: str, answers: dict[str, bytes], **settings) -> dict[str, float]:
    """What is exported of these counters after such an engine was read, by name."""
    fleet = make_fleet(p=("m", 1))
    telemetry = Telemetry(TelemetrySettings(**settings), lambda: NOW, fleet)
    reading = dialect(engine).read({path: (200, text) for path, text in answers.items()})
    telemetry.read("p-0", reading, NOW)
    body, _ = render(take_snapshot(telemetry, NOW), "")
    samples = [each for family in parse_text(body.decode()) for each in family.samples]
    found = {each.name: each for each in samples if each.name in NAMES}
    for each in found.values():
        assert each.labels == {"model_id": "m", "pool": "p", "replica": "p-0"}
    return {name: each.value for name, each in found.items()}


@pytest.mark.parametrize(
    ("engine", "path", "capture", "expected"),
    [
        ("vllm", "/metrics", "metrics-under-load-14conc-8seqs", (6824, 512, 0)),
        ("vllm", "/metrics", "variant2-metrics-kv-nearly-full", (8761, 160, 1)),
        ("sglang", "/metrics", "metrics-dp2-tp2-all-schedulers", (9000 + 500 + 500, 2000 + 300, 3)),
        ("sglang", "/metrics", "metrics-old-names", (None, None, None)),
        ("trtllm", "/prometheus/metrics", "prometheus-metrics", (20_480, 5_120, None)),
        # Its `prompt_tokens_total` leaves out what was cached.
        ("llamacpp", "/metrics", "metrics-under-load-8conc-4slots", (13_316 + 2629, 2629, None)),
        ("tgi", "/metrics", "metrics-under-load", (None, None, None)),
        ("triton", "/metrics", "metrics-under-load", (None, None, None)),
    ],
)
def test_what_an_engine_counts_of_its_cache_is_shown_as_it_counts_it(
    engine: str, path: str, capture: str, expected: tuple[float | None, ...]
):
    told = {name: value for name, value in zip(NAMES, expected, strict=True) if value is not None}
    assert shown(engine, {path: metrics(engine, capture)}) == told


def test_one_process_alone_shows_them():
    text = metrics("vllm", "variant2-metrics-kv-nearly-full")
    assert shown("vllm", {"/metrics": text}, engine_gauges=False) == {}


def test_a_replica_that_left_is_not_shown_when_another_has_its_name():
    fleet = make_fleet(p=("m", 1))
    telemetry = Telemetry(TelemetrySettings(), lambda: NOW, fleet)
    telemetry.read(
        "p-0", dialect("vllm").read({"/metrics": (200, b"vllm:num_preemptions_total 4")}), NOW
    )
    telemetry.forget("p-0")
    assert telemetry.readings == {}
