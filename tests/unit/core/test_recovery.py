"""A replica that was slow for a while gets less traffic, and then its share again."""

import pytest

from headrace.core.latency import LatencyProfile
from tests.unit.core.virtual_fleet import VirtualFleet

TRUE = LatencyProfile("true", "profile true", 0.005, 1e-4, per_sequence_s=5e-4)
NAMES = ["r0", "r1", "r2", "r3"]
FAIR = 1 / len(NAMES)
SLOW_FROM_S, SLOW_UNTIL_S = 120.0, 150.0
RECOVERED_S = SLOW_UNTIL_S + 180.0


def slow_for_half_a_minute(name: str, now: float) -> float:
    return 4.0 if name == "r1" and SLOW_FROM_S <= now < SLOW_UNTIL_S else 1.0


@pytest.fixture(scope="module", params=[2.0, 16.0, 28.0], ids=["5%", "40%", "70%"])
def fleet(request: pytest.FixtureRequest) -> VirtualFleet:
    """At a share of what the four can prefill."""
    fleet = VirtualFleet(NAMES, TRUE, TRUE, slow_for_half_a_minute)
    fleet.run(RECOVERED_S + 60.0, request.param, 1000)
    return fleet


def test_a_slow_replica_gets_less(fleet):
    assert fleet.share("r1", SLOW_FROM_S + 5.0, SLOW_UNTIL_S) < 0.6 * FAIR


def test_it_has_its_share_again_within_three_minutes(fleet):
    before = fleet.share("r1", 20.0, SLOW_FROM_S)
    after = fleet.share("r1", RECOVERED_S, RECOVERED_S + 60.0)
    assert after > 0.8 * before
    assert after > 0.7 * FAIR


def test_without_a_profile_the_fleet_learns_one_and_balances():
    fleet = VirtualFleet(NAMES, TRUE, None, lambda _name, _now: 1.0)
    fleet.run(120.0, 16.0, 1000)
    profile = fleet.dispatcher.fleet.pools["pool"].latency.profile
    assert profile is not None
    assert profile.prefill_s(1000) == pytest.approx(TRUE.prefill_s(1000), rel=0.2)
    for name in NAMES:
        assert fleet.share(name, 30.0, 120.0) == pytest.approx(FAIR, rel=0.2)
