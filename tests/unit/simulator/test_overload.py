"""More comes than can be done, for longer than anybody can wait: who is served is in time."""

from __future__ import annotations

import random
from functools import cache
from math import inf
from statistics import median
from typing import Any

import pytest

from headrace.core.admission import Tier
from headrace.core.events import Effect, Reject, RejectReason
from headrace.core.flights import Flight
from headrace.core.model import Request
from headrace.core.settings import DispatcherSettings
from headrace.engine_model.profiles import profile
from headrace.simulator import driver
from headrace.simulator.driver import Simulation
from headrace.simulator.engines import engine_specs
from headrace.simulator.results import Results, Scores, scores_of
from headrace.simulator.settings import SimulationSettings
from headrace.traffic.trace import TraceRequest

CASES = {2000: (10.3, 2, 150.0), 200: (49.4, 1, 90.0)}
"""By prompt length, with 200 tokens of answer: the rate at which one replica meets 95 %, replicas,
seconds."""


@cache
def played(policy: str, prompt_tokens: int, times: float) -> Scores:
    """Requests that are all alike, at so many times what a replica carries."""
    carried_per_s, replicas, seconds = CASES[prompt_tokens]
    settings = SimulationSettings(engine=profile("h100-llama-3.1-8b"), replicas=replicas, seed=3)
    rng, at_s = random.Random(3), 0.0
    requests: list[TraceRequest] = []
    while at_s < seconds:
        at_s += rng.expovariate(times * replicas * carried_per_s)
        requests.append(TraceRequest(at_s, prompt_tokens, 200))
    results = Simulation(settings, policy, engine_specs(settings), requests, 512).run()
    return scores_of(policy, results, settings.slo)


@pytest.mark.parametrize("prompt_tokens", sorted(CASES))
def test_half_of_what_can_be_served_in_time_is(prompt_tokens):
    """Of 1.5 times what is carried two thirds can be; in the order of arrival nobody would be."""
    ours, in_order = (played(policy, prompt_tokens, 1.5) for policy in ("seconds", "round_robin"))
    assert in_order.goodput_share < 0.1
    assert ours.goodput_share > 0.33
    assert ours.completed == in_order.completed == ours.requests  # nothing is shed here
    assert ours.output_tokens_per_s > 0.9 * in_order.output_tokens_per_s


def test_who_cannot_be_served_is_told_at_once(monkeypatch):
    """With the default tier, as live: not after its two minutes to live."""
    waited_s: list[float] = []
    refuse = Flight.refuse

    def noted(flight: Flight, reject: Reject, now: float) -> list[Effect]:
        assert (reject.status, reject.reason) == (429, RejectReason.OVERLOADED)
        waited_s.append(now - flight.arrived_s)
        return refuse(flight, reject, now)

    monkeypatch.setattr(Flight, "refuse", noted)
    all_served = played("seconds", 200, 1.5)
    assert all_served.shed == 0
    assert not waited_s
    monkeypatch.setattr(
        driver, "Tier", lambda name, ttft_s, tpot_s, **_: Tier(name, ttft_s, tpot_s)
    )
    ours = played.__wrapped__("seconds", 200, 1.5)
    assert ours.completed + ours.shed == ours.requests
    assert 0.1 < ours.shed / ours.requests < 0.4
    assert max(waited_s) < 2.5
    assert ours.goodput_share > all_served.goodput_share - 0.01


URGENT = Tier("urgent", 2.0, 0.05, priority=10, shed_after_factor=0.0, ttl_s=inf)
PATIENT = Tier("patient", 60.0, 0.2, priority=-10, shed_after_factor=0.0, ttl_s=inf)


def played_in_tiers(monkeypatch: pytest.MonkeyPatch) -> Results:
    """Two in three requests are urgent, and more comes than two replicas carry."""
    monkeypatch.setattr(
        driver,
        "_dispatcher_settings",
        lambda _: DispatcherSettings(tiers=(URGENT, PATIENT), decisions=1),
    )
    made = driver.Request

    def request(id_: str, *about: Any, **details: Any) -> Request:
        tier = "urgent" if int(id_[1:]) % 3 else "patient"
        details |= {"tier": tier, "ttft_target_s": None, "tpot_target_s": None}
        return made(id_, *about, **details)

    monkeypatch.setattr(driver, "Request", request)
    engine = profile("h100-llama-3.1-8b")
    settings = SimulationSettings(engine=engine, replicas=2, drain_limit_s=36_000.0)
    rng, at_s = random.Random(1), 0.0
    requests: list[TraceRequest] = []
    for _ in range(900):
        at_s += rng.expovariate(12.0)
        requests.append(TraceRequest(at_s, rng.randint(500, 12_000), rng.randint(20, 300)))
    return Simulation(settings, "seconds", engine_specs(settings), requests, 512).run()


def test_the_urgent_do_not_wait_for_those_who_have_time(monkeypatch):
    """Whose lax TPOT target is no reason to send them first."""
    results = played_in_tiers(monkeypatch)
    urgent = [ttft_s for row, ttft_s in enumerate(results.ttft_s) if row % 3]
    patient = [ttft_s for row, ttft_s in enumerate(results.ttft_s) if not row % 3]
    assert median(urgent) < URGENT.ttft_s
    assert median(urgent) < median(patient)
