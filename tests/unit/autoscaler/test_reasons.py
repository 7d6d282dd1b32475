"""What each signal goes by and why a number changed, in words rather than names of figures."""

from __future__ import annotations

import re
from dataclasses import replace
from math import inf

import msgspec
import pytest

from headrace.autoscaler.reasons import signal_in_words, step_in_words
from headrace.core.scaling.plan import DemandOutlook, ScalePlan, Signal
from headrace.core.scaling.settings import ScheduledFloor
from headrace.core.signals import SIGNALS, opinions
from tests.unit.core.scaling.test_signals import SETTINGS, view_of

NAME_OF_A_FIGURE = re.compile(r"\b[a-z0-9]+_[a-z0-9_]+:? -?\d")
WAITING = Signal(
    "queued_prefill",
    5.25,
    "backlog_s",
    (
        ("backlog_tokens", 1200.0),
        ("backlog_s", 3.0),
        ("excess_s", 9.0),
        ("growth_s", -4.0),
        ("held_requests", 1.0),
    ),
)
CEILING = Signal("ceiling", 3, "max_replicas", (), kind="ceiling")
FLOOR = Signal("floor", 2, "warm_replicas", (("idle_s", 0.0),), kind="floor")
IDLE = Signal("kv_occupancy", 0.0, "mean", ())


def step(decided_by: str, *signals: Signal, holds: tuple[str, ...] = ()) -> str:
    plan = ScalePlan(0.0, "p", 3, signals=signals, decided_by=decided_by, holds=holds)
    return step_in_words(msgspec.to_builtins(plan))


def said(signal: Signal) -> str:
    return signal_in_words(msgspec.to_builtins(signal))


@pytest.mark.parametrize("used", [0.97, 0.3])
def test_every_signal_is_told_in_words(used: float):
    floors = (ScheduledFloor(10_000.0, 20_000.0, 6, "office"),)
    view = view_of(
        usages=(used,) * 4,
        load=3.0,
        settings=replace(SETTINGS, schedule=floors),
        replica={"memory_bandwidth_ratio": 0.97, "waiting_prefill_tokens": 90_000.0},
        report={"ttft_worst_ratio": 2.0, "held_requests": 3.0},
        held_requests=3.0,
        outlook=DemandOutlook(3.0, 3.2, 4.5, 255.0),
        burn_rates=dict.fromkeys((3600.0, 300.0, 21600.0, 1800.0), 20.0),
    )
    signals = opinions(view)
    assert {each.name for each in signals} == {each.__name__ for each in SIGNALS}
    for each in signals:
        assert not NAME_OF_A_FIGURE.search(said(each)), said(each)


@pytest.mark.parametrize(
    ("why", "conclusion"),
    [
        ("ttft", "though replicas have had room for the demand for 150 s"),
        ("tpot explained", "which counts once replicas have had room for the demand for 120 s"),
        ("ttft late on idle replicas: more would not help", "more would not help"),
        ("met", "TTFT is at 40 % of its target, TPOT at 80 %"),
    ],
)
def test_what_latencies_are_is_told_with_what_follows(why: str, conclusion: str):
    figures = (("ttft_ratio", 0.4), ("tpot_ratio", 0.8), ("ready_replicas", 2.0), ("fits_s", 150.0))
    assert conclusion in said(Signal("slo_latency", 0.0, why, figures))


def test_each_conclusion_of_the_latency_signal_has_words():
    for ratios in ({"ttft_worst_ratio": 2.0}, {"tpot_worst_ratio": 2.0}, {"ttft_worst_ratio": 0.5}):
        for load, fits_s in ((3.0, 600.0), (3.0, 5.0), (0.1, 600.0)):
            view = view_of(report=ratios, load=load, fits_s=fits_s)
            [signal] = [each for each in opinions(view) if each.name == "slo_latency"]
            _, _, conclusion = said(signal).partition(": ")
            assert conclusion.startswith(("late", "no more")), said(signal)


def test_a_wish_that_became_the_number_tells_what_it_is_made_of():
    text = step("queued_prefill", IDLE, WAITING, FLOOR, CEILING)
    assert text == (
        "queued_prefill wants 5.25: 1 request held at gateways; 1,200 prompt tokens wait (3.00 s "
        "of prefill); 9.00 s of work for a replica beyond what flows through anyway"
    )


def test_a_wish_just_over_a_whole_number_says_so_where_it_is_rounded():
    assert "wants a little over 1.00: " in step("x", replace(WAITING, name="x", replicas=1.004))
    assert "wants 1.01: " in step("x", replace(WAITING, name="x", replicas=1.006))
    assert "wants 1.00: " in step("x", replace(WAITING, name="x", replicas=1.0))


def test_a_bound_tells_its_number_and_the_wish_that_it_cut_once():
    held = "5.25 wished, 3 allowed by max_replicas"
    text = step("ceiling: max_replicas", WAITING, CEILING, holds=(held, "a gateway is silent"))
    assert text.startswith("ceiling: max_replicas is 3; queued_prefill wants 5.25: ")
    assert "allowed by" not in text
    assert text.endswith("; a gateway is silent")
    assert step("floor: warm_replicas", IDLE, FLOOR, CEILING) == "floor: warm_replicas is 2"


def test_what_is_held_tells_why_and_what_is_wished():
    held = "not lowered to 2 before 300 s of wishes are known"
    text = step("hysteresis", WAITING, FLOOR, holds=(held,))
    assert text.startswith(f"hysteresis; {held}; queued_prefill wants 5.25: ")


def test_where_nobody_asks_that_is_told():
    assert step("", IDLE, CEILING) == "nothing asks for any"
    assert step("idle", IDLE, CEILING) == "idle"


def test_what_another_version_tells_is_written_as_told():
    assert said(Signal("new_one", 2.0, "because", (("load", 2.5),))) == "because: load 2.5"
    other = Signal("token_throughput", 2.0, "tpot", (("load_now", 1.64e-05),))
    assert said(other) == "tpot: load_now 1.64e-05"


@pytest.mark.parametrize(
    ("name", "why", "figures"),
    [
        ("schedule", "office", {"begins_s": 10_000.0, "ends_s": inf}),
        (
            "token_throughput",
            "compute",
            {
                "requests_per_s": 2.0,
                "uncached_tokens_per_s": 0.0,
                "output_tokens_per_s": 0.0,
                "load": 0.0,
                "replica_requests_per_s": inf,
            },
        ),
    ],
)
def test_what_has_no_bound_reads_the_same_in_a_log_and_over_http(
    name: str, why: str, figures: dict[str, float]
):
    signal = Signal(name, 6.0, why, tuple(figures.items()))
    over_http = msgspec.json.decode(msgspec.json.encode(signal))
    assert said(signal) == signal_in_words(over_http)
    assert "inf" not in said(signal)
