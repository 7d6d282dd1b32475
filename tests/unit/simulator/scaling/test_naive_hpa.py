"""The HPA of the baselines and another one, written on its own, order the same on random inputs."""

from random import Random

import pytest

from headrace.simulator.scaling.actuation import Actuator
from headrace.simulator.scaling.scalers import Scaler, make_scaler
from headrace.simulator.scaling.scalers.hpa_cpu import (
    CPU_PER_REQUEST_S,
    CPU_PER_TOKEN_S,
    POLLING_CORES,
    REQUESTED_CORES,
)
from headrace.simulator.scaling.scalers.llmd_token import LlmdToken
from tests.unit.simulator.scaling.naive_hpa import FLOOR, NaiveHpa
from tests.unit.simulator.scaling.parts import demand, reading, settings

SYNCS, MOST = 240, 60
DOUBLE_OR_FOUR = [("percent", 100, 15.0), ("pods", 4, 15.0)]
ALL = [("percent", 100, 15.0)]


def as_it_comes(down_window_s=300.0):
    return NaiveHpa(0.0, down_window_s, DOUBLE_OR_FOUR, ALL, 1, MOST)


def played(scaler: Scaler, naive, proposals, seed):
    """Both, sync by sync, on a load that drifts, jumps and stands still; the number is shared."""
    rng = Random(seed)
    actuator = Actuator(scaler.behaviour, 1, MOST)
    current, load, ready = rng.randint(1, 30), rng.uniform(1.0, 30.0), 1
    for sync in range(1, SYNCS + 1):
        now = 15.0 * sync
        if rng.random() < 0.5:
            load *= rng.choice((0.2, 0.7, 0.9, 0.97, 1.03, 1.1, 1.4, 4.0))
        load = min(max(load, 0.01), 120.0)
        ready = rng.randint(min(ready, current), current)
        seen = reading(
            now,
            ready,
            current,
            requests_per_s=load * 16.0,
            output_tokens_per_s=load * 1500.0,
            queue_depth=rng.choice((0.0, load * 7.0)),
            waiting_input_tokens=load * 9000.0,
            kv_usage=min(load * 0.3, float(ready)),
            running=load * 20.0,
        )
        ordered = actuator.number(scaler.wish(seen), current, now)
        wanted = naive.replicas([*proposals(seen), FLOOR], current, now)
        assert ordered == wanted, f"at {now:g} s with {current}"
        current = ordered


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("window_s", [300, 900])
def test_keda_queue(seed, window_s):
    scaler = make_scaler(
        f"keda_queue:tokens=1700,down_window_s={window_s}", settings(), demand(20.0)
    )
    naive = as_it_comes(window_s)
    played(
        scaler,
        naive,
        lambda seen: [
            naive.total(seen.queue_depth, 15.0, seen.number),
            naive.total(seen.output_tokens_per_s, 1700.0, seen.number),
        ],
        seed,
    )


@pytest.mark.parametrize("seed", range(20))
def test_hpa_rps(seed):
    scaler = make_scaler("hpa_rps:share=0.7", settings(), demand(20.0))
    naive = as_it_comes()
    each = 0.7 * (0.8 / 0.0405)  # as in test_scalers
    played(scaler, naive, lambda seen: [naive.total(seen.requests_per_s, each, seen.number)], seed)


@pytest.mark.parametrize("seed", range(20))
def test_hpa_cpu(seed):
    scaler = make_scaler("hpa_cpu:target=0.2", settings(), demand(20.0))
    naive = as_it_comes()

    def proposals(seen):
        busy = POLLING_CORES * min(seen.running, seen.ready)
        busy += CPU_PER_REQUEST_S * seen.requests_per_s
        busy += CPU_PER_TOKEN_S * seen.output_tokens_per_s
        # One pod with all of it: Kubernetes sums, so how it lies among them is nothing.
        pods = [busy, *[0.0] * (seen.ready - 1), *[None] * (seen.number - seen.ready)]
        return [naive.utilisation(pods, REQUESTED_CORES, 0.2)]

    played(scaler, naive, proposals, seed)


@pytest.mark.parametrize("seed", range(20))
def test_llmd_token(seed):
    scaler = make_scaler("llmd_token:kv=0.2", settings(), demand(20.0))
    assert isinstance(scaler, LlmdToken)
    naive = NaiveHpa(0.0, 300.0, [("pods", 1, 180.0)], [("pods", 1, 300.0)], 1, MOST)
    rate = scaler.prefill_rate
    seconds = 0.65 * (2.0 - 500.0 / rate)
    played(
        scaler,
        naive,
        lambda seen: [
            naive.total(seen.waiting_input_tokens / rate, seconds, seen.number),
            naive.total(seen.kv_usage, 0.2, seen.number),
        ],
        seed,
    )


@pytest.mark.parametrize("seed", range(20))
def test_llmd_slo_whose_number_is_a_metric_with_target_one(seed):
    rng = Random(seed)
    scaler = make_scaler("llmd_slo", settings(), demand(20.0))
    up = [("percent", 100, 60.0), ("pods", 4, 60.0)]
    naive = NaiveHpa(30.0, 180.0, up, [("pods", 1, 120.0)], 1, MOST)
    actuator = Actuator(scaler.behaviour, 1, MOST)
    current = 8
    for sync in range(1, SYNCS + 1):
        now = 15.0 * sync
        wish = max(round(current * rng.choice((0.4, 0.8, 0.9, 1.0, 1.0, 1.1, 1.2, 2.0))), 0)
        ordered = actuator.number(wish, current, now)
        assert ordered == naive.replicas([naive.total(wish, 1.0, current)], current, now)
        current = ordered
