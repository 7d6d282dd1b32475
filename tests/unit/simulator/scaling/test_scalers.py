"""Each rule's formula, worked out by hand."""

from math import ceil
from typing import Any

import pytest

from headrace.core.scaling.demand_history import DemandSample
from headrace.simulator.scaling.actuation import DIRECT, Actuator
from headrace.simulator.scaling.parameters import RANGES
from headrace.simulator.scaling.scalers import NAMES, make_scaler, parameters_of, sweep_of
from headrace.simulator.scaling.scalers.dynamo_planner import DynamoPlanner, forecast
from headrace.simulator.scaling.scalers.headrace import Headrace
from headrace.simulator.scaling.scalers.llmd_slo import law
from headrace.simulator.scaling.scalers.oracle import plan
from headrace.simulator.scaling.sweep import combinations
from tests.unit.simulator.scaling.parts import demand, mix, reading, settings


def make(written, per_s=20.0, **changes):
    return make_scaler(written, settings(**changes), demand(per_s, per_s))


@pytest.mark.parametrize("name", NAMES)
def test_every_scaler_is_made_with_its_defaults_and_sweeps_what_it_has(name):
    scaler = make(name)
    assert 1 <= scaler.wish(reading(tpot_p90_s=0.02, tpot_mean_s=0.02)) <= 256
    assert set(sweep_of(name)) <= set(parameters_of(name))
    for written in combinations(name)[:3]:
        make(written)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("nothing", "unknown scaler 'nothing'; known: headrace, llmd_slo,"),
        (
            "llmd_slo:sup=1",
            "scaler 'llmd_slo:sup=1': unknown parameter 'sup', did you mean 'up'? known: up",
        ),
        ("llmd_slo:up=x", "scaler 'llmd_slo:up=x': 'x' is not a number"),
        ("static:margin=-1", "scaler 'static:margin=-1': margin is -1; give 0.001 to 1,000"),
        ("static:margin=inf", "margin is inf; give 0.001 to 1,000"),
        ("static:margin=nan", "margin is nan; give 0.001 to 1,000"),
        ("static:margin=1e308", "margin is 1e308; give 0.001 to 1,000"),
        ("oracle:margin=0", "margin is 0; give 0.001 to 1,000"),
        ("headrace:attainment=1", "attainment is 1; give one above 0 and below 1"),
        ("headrace:attainment=1.5", "attainment is 1.5; give one above 0 and below 1"),
        ("headrace:attainment=0", "attainment is 0; give one above 0 and below 1"),
        ("hpa_cpu:target=0", "target is 0; give 0.001 to 10"),
        ("dynamo_planner:sla=0", "sla is 0; give 0.001 to 1,000"),
        ("hpa_rps:share=0", "share is 0; give 0.001 to 10"),
        ("hpa_rps:down_window_s=1e9", "down_window_s is 1e9; give 0 to 3,600"),
        ("keda_queue:queue=0", "queue is 0; give 0.001 to 100,000"),
        ("keda_queue:tokens=0", "tokens is 0; give 0.001 to 100,000"),
        ("llmd_token:kv=0", "kv is 0; give 0.001 to 1"),
        ("llmd_slo:up=0", "up is 0; give 0.001 to 1,000"),
    ],
)
def test_a_wrong_one_is_told_what_is_right(written, said):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is checked below
        make(written)
    assert said in str(raised.value)


def test_every_parameter_has_a_range_and_is_playable_at_both_its_ends():
    known = {parameter for name in NAMES for parameter in parameters_of(name)}
    assert set(RANGES) == known
    busy: dict[str, Any] = {
        "requests_per_s": 50.0,
        "output_tokens_per_s": 5e3,
        "queue_depth": 40.0,
        "waiting_input_tokens": 2e4,
        "ttft_p90_s": 3.0,
        "tpot_p90_s": 0.1,
        "tpot_mean_s": 0.08,
        "running": 200.0,
        "kv_usage": 3.0,
    }
    for name in NAMES:
        for parameter in parameters_of(name):
            ends = RANGES[parameter]
            for end in (ends.least + 1e-9 * ends.open, ends.most - 1e-9 * ends.open):
                scaler = make(f"{name}:{parameter}={end!r}")
                for now in range(15, 240, 15):
                    assert scaler.wish(reading(float(now), **busy)) >= 0


@pytest.mark.parametrize(
    ("s", "number", "ready", "wanted"),
    [
        (0.50, 8, 8, 8),  # between the thresholds
        (1.10, 8, 8, 16),  # 8 + ceil(8 * (1.1/0.55 - 1))
        (1.10, 16, 8, 16),  # half of them start: s * 0.5 is at the threshold
        (2.00, 8, 4, 15),  # 8 + ceil(8 * (2 * 0.5/0.55 - 1)) = 8 + ceil(6.55)
        (0.60, 8, 2, 8),  # enough is on its way: never down above `up`
        (0.66, 8, 0, 10),  # none is ready: no credit, 8 + ceil(8 * 0.2)
        (0.30, 8, 8, 6),  # 8 - floor(8 * 0.25)
        (0.39, 8, 8, 8),  # 8 - floor(0.2)
    ],
)
def test_llmd_slo_law(s, number, ready, wanted):
    assert law(s, number, ready, 0.55, 0.40) == wanted


def test_llmd_slo_takes_the_worse_of_ttft_and_tpot_capped_and_averaged_over_45_s():
    scaler = make("llmd_slo")
    assert scaler.wish(reading(15.0, 8, 8, ttft_p90_s=1.0, tpot_p90_s=0.01)) == 8  # s = 0.5
    # s = (0.5 + 2) / 2 = 1.25: 8 + ceil(8 * (1.25/0.55 - 1)) = 8 + ceil(10.2)
    assert scaler.wish(reading(30.0, 8, 8, ttft_p90_s=90.0, tpot_p90_s=0.01)) == 19
    scaler.wish(reading(45.0, 8, 8, tpot_p90_s=0.025))
    # The first is 45 s old and gone: (2 + 0.5 + 0.5) / 3 = 1: 8 + ceil(8 * (1/0.55 - 1))
    assert scaler.wish(reading(60.0, 8, 8, tpot_p90_s=0.025)) == 15


def test_llmd_slo_waits_as_its_guide_does():
    # workload-autoscaling/slo-aware: "a 30 s stabilization window" up, "a 180 s window" down.
    behaviour = make("llmd_slo").behaviour
    assert (behaviour.up_window_s, behaviour.down_window_s) == (30.0, 180.0)
    assert [(p.kind, p.value, p.period_s) for p in behaviour.up] == [
        ("percent", 100, 60),
        ("pods", 4, 60),
    ]
    assert [(p.kind, p.value, p.period_s) for p in behaviour.down] == [("pods", 1, 120)]


def test_llmd_token_counts_waiting_prompts_and_kv():
    scaler = make("llmd_token")
    rate = 8192 / (0.01 + 8192 * 5e-5)
    seconds = 0.65 * (2 - 500 / rate)
    wanted = ceil(200_000 / rate / seconds)
    assert wanted == 8
    assert scaler.wish(reading(waiting_input_tokens=200_000)) == wanted
    assert scaler.wish(reading(waiting_input_tokens=200_000, kv_usage=8.1)) == 11  # 8.1/0.8


def test_dynamo_planner_orders_by_throughput_every_3_minutes():
    scaler = make("dynamo_planner")
    # One engine: prefill 0.025 s, 100 tokens * (1e-4 + 1e-7 * 550): 0.0155 s; free 1 - 0.01/0.05
    capacity = 0.8 / (0.025 + 0.0155)
    assert isinstance(scaler, DynamoPlanner)
    assert scaler.engine_rate(mix()) == pytest.approx(capacity)
    busy: dict[str, Any] = {"tpot_mean_s": 0.03}  # neither above the SLA nor far below
    for step in range(35):
        assert scaler.wish(reading(5.0 * (step + 1), 2, 2, requests_per_s=100.0, **busy)) == 2
    wanted = ceil(100.0 / capacity)
    assert scaler.wish(reading(180.0, 2, 2, requests_per_s=100.0, **busy)) == wanted == 6


def test_dynamo_planner_goes_on_from_the_intervals_before():
    # Ten minutes of 5/s, then five of 20/s: 600 s hold no whole number of its 180 s.
    history = [
        DemandSample(-900.0, 600.0, 3000.0, 1e6, 1e5),
        DemandSample(-300.0, 300.0, 6000.0, 1e6, 1e5),
    ]
    scaler = make("dynamo_planner")
    assert isinstance(scaler, DynamoPlanner)
    scaler.learn(history)
    known = [5.0, 5.0, 5.0, (60 * 5.0 + 120 * 20.0) / 180.0, 20.0]
    busy: dict[str, Any] = {"tpot_mean_s": 0.03, "requests_per_s": 20.0}
    wishes = [scaler.wish(reading(5.0 * (step + 1), 1, 1, **busy)) for step in range(36)]
    assert wishes[-1] == ceil(forecast([*known, 20.0]) / scaler.engine_rate(mix()))


def test_dynamo_planner_adds_and_takes_one_by_latency():
    scaler = make("dynamo_planner")
    assert scaler.wish(reading(5.0, 4, 4, ttft_p90_s=0.1, tpot_mean_s=0.06)) == 5
    assert scaler.wish(reading(10.0, 4, 5, ttft_p90_s=0.1, tpot_mean_s=0.06)) == 5  # one starts
    assert scaler.wish(reading(15.0, 4, 4, ttft_p90_s=0.1, tpot_mean_s=0.029)) == 3  # *4/3 < .04
    assert scaler.wish(reading(20.0, 4, 4, ttft_p90_s=0.1, tpot_mean_s=0.031)) == 4
    assert scaler.wish(reading(25.0, 4, 4, tpot_mean_s=0.02, kv_usage=2.8)) == 4  # KV would not fit


def test_a_strict_dynamo_planner_orders_nothing_while_what_it_ordered_starts():
    strict, kinder = make("dynamo_planner:strict=1"), make("dynamo_planner")
    busy: dict[str, Any] = {"requests_per_s": 100.0, "tpot_mean_s": 0.03}
    for step in range(36):
        for scaler in (strict, kinder):
            scaler.wish(reading(5.0 * (step + 1), 2, 2, **busy))
    # The floor is 6 by now. (See above.)
    assert kinder.wish(reading(185.0, 2, 3, **busy)) == 6
    assert strict.wish(reading(185.0, 2, 3, **busy)) == 3
    assert strict.wish(reading(190.0, 3, 3, **busy)) == 6


def test_a_strict_dynamo_planner_takes_only_what_grows_with_load_times_more():
    scaler = make("dynamo_planner:strict=1")
    # 0.01 + (ITL - 0.01) * 4/3 < 0.8 * 0.05: below 0.0325
    for tpot_s, wanted in ((0.0324, 3), (0.0326, 4), (0.06, 5)):
        assert scaler.wish(reading(5.0, 4, 4, ttft_p90_s=0.1, tpot_mean_s=tpot_s)) == wanted
    # At an ITL of 0.025 then 0.03: own = 0.035 + 0.02; (TTFT - own) * 4/3 < 0.8 * (2 - own)
    own_s = 0.035 + 0.02
    most_s = own_s + 0.8 * (2.0 - own_s) * 3 / 4
    for ttft_s, wanted in ((most_s - 1e-3, 3), (most_s + 1e-3, 4), (2.1, 5)):
        assert scaler.wish(reading(5.0, 4, 4, ttft_p90_s=ttft_s, tpot_mean_s=0.025)) == wanted
    for kv_usage, wanted in ((2.99, 3), (3.0, 4)):
        assert scaler.wish(reading(5.0, 4, 4, tpot_mean_s=0.02, kv_usage=kv_usage)) == wanted
    assert scaler.wish(reading(5.0, 1, 1, tpot_mean_s=0.011)) == 1


def test_dynamo_forecast_follows_a_trend():
    assert forecast([5.0]) == 5.0
    # Changes are all 2: phi = 1, cut to 0.95: 12 + 1.9
    assert forecast([2.0, 4.0, 6.0, 8.0, 10.0, 12.0]) == pytest.approx(13.9)
    # Changes that alternate: phi below 0, taken as 0
    assert forecast([2.0, 4.0, 2.0, 4.0, 2.0, 4.0]) == 4.0


def test_keda_queue_takes_the_larger_trigger():
    scaler = make("keda_queue")
    assert scaler.wish(reading(queue_depth=46.0)) == 4  # 46/15
    assert scaler.wish(reading(queue_depth=46.0, output_tokens_per_s=25_001.0)) == 6
    assert scaler.wish(reading()) == 1


@pytest.mark.parametrize(
    ("written", "metric", "each"),
    [
        ("keda_queue", "output_tokens_per_s", 5000.0),
        ("keda_queue", "queue_depth", 15.0),
        ("llmd_token", "kv_usage", 0.8),
        ("hpa_rps:share=1", "requests_per_s", 0.8 / 0.0405),
    ],
)
def test_an_hpa_looks_at_the_metric_of_all_ordered_before_it_rounds(written, metric, each):
    def number(load, ordered):
        scaler = make(written)
        seen: dict[str, Any] = {metric: load * each}
        wish = scaler.wish(reading(15.0, 2, ordered, **seen))
        return Actuator(scaler.behaviour, 1, 99).number(wish, ordered, 15.0), wish

    assert number(5.4, 5) == (5, 5)  # 6 are 20 % more than 5, the metric is 8 % over its target
    assert number(5.6, 5) == (6, 6)
    assert number(8.9, 10)[1] == 9  # 9 are within 10 % of 10, the metric is not


def test_hpa_rps_divides_by_what_a_load_test_says():
    scaler = make("hpa_rps")
    # context 100 * 500 + 5000 over 100 = 550; work 0.025 + 100 * 1.55e-4 = 0.0405; 0.8/0.0405
    capacity = 0.8 / 0.0405
    assert scaler.wish(reading(requests_per_s=0.8 * capacity * 3 - 0.01)) == 3
    assert scaler.wish(reading(requests_per_s=0.8 * capacity * 3 + 0.01)) == 4


def test_hpa_cpu_sees_a_polling_core_and_requests_only():
    scaler = make("hpa_cpu:target=0.25")
    # 4 cores poll + 100 * 0.005 + 10,000 * 50e-6 = 5 busy; 8 cores * 0.25 = 2 each
    seen: dict[str, Any] = {
        "running": 500.0,
        "requests_per_s": 100.0,
        "output_tokens_per_s": 10_000.0,
    }
    assert scaler.wish(reading(**seen)) == 3
    assert scaler.wish(reading(**seen, ttft_p90_s=99.0, input_tokens_per_s=1e9)) == 3


def test_static_is_the_mean_load_times_its_margin():
    # 20 requests/s at 0.8/0.0405 = 19.75 each: 1.01 replicas, arrivals by chance within 10 %
    assert make("static:margin=4").wish(reading()) == 5
    assert make("static").behaviour is DIRECT


def test_the_oracle_orders_one_cold_start_ahead_and_keeps_what_it_will_need_again():
    needs = [2] * 10 + [5] * 4 + [2] * 2 + [5] * 4 + [1] * 12
    wishes = plan(needs, ahead=3, sync=1)
    # Ordered at 6 for 9 (an order is for the whole sync it arrives in), kept over the gap of two.
    assert wishes[:7] == [2, 2, 2, 2, 2, 2, 5]
    assert wishes[7:20] == [5] * 13
    assert wishes[20:29] == [1] * 9


def test_headrace_is_the_scaler_that_runs_live():
    scaler = make("headrace")
    assert scaler.behaviour is DIRECT
    number = scaler.wish(reading())
    assert isinstance(scaler, Headrace)
    assert scaler.plan is not None
    assert scaler.plan.replicas == number
