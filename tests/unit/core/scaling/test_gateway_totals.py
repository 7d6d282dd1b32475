"""One gateway's totals: rates while it is believed, while it is not, and afterwards."""

from __future__ import annotations

import pytest

from headrace.core.scaling.gateway_totals import DISTRUST_S, KEPT_S, LEAST_WINDOW_S, GatewayTotals
from headrace.core.scaling.observation import GatewayReport

STEP_S = 15.0


class Gateway:
    """One whose reports are read every `STEP_S`."""

    def __init__(self) -> None:
        self.totals = GatewayTotals()
        self.now = 1000.0
        self.requests = self.refused = self.shed = 0.0

    def tell(
        self, *, after_s: float = STEP_S, age_s: float = 0.0, started_at_s: float = 1.0
    ) -> None:
        self.now += after_s
        report = GatewayReport(
            "g",
            started_at_s,
            age_s=age_s,
            requests=self.requests,
            refused_requests=self.refused,
            shed_requests=self.shed,
        )
        self.totals.observe(report, self.now)

    def serve(self, seconds: float, per_s: float) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.requests += per_s * STEP_S
            self.tell()

    def rate(self, window_s: float = 60.0) -> float:
        rate = self.totals.requests_per_s(window_s)
        assert rate is not None
        return rate

    def trouble(self) -> str:
        return self.totals.trouble_at(self.now, 1e9)


@pytest.fixture
def gateway() -> Gateway:
    """It has served ten requests a second for five minutes."""
    gateway = Gateway()
    gateway.requests = 5000.0
    gateway.serve(300.0, 10.0)
    return gateway


def test_a_rate_is_of_the_window_that_is_asked_for(gateway: Gateway):
    gateway.serve(60.0, 40.0)
    assert gateway.rate(60.0) == pytest.approx(40.0)
    assert gateway.rate(50.0) == pytest.approx(40.0)
    assert gateway.rate(120.0) == pytest.approx(25.0)
    gateway.serve(60.0, 0.0)
    assert gateway.rate(60.0) == 0.0


def test_totals_of_before_are_no_demand_and_the_first_seconds_no_rate():
    gateway = Gateway()
    gateway.requests = 5000.0
    gateway.tell()
    assert gateway.totals.requests_per_s(60.0) is None
    gateway.requests += 30.0
    gateway.tell(after_s=10.0)
    assert gateway.rate() == pytest.approx(30.0 / LEAST_WINDOW_S)
    gateway.tell(after_s=LEAST_WINDOW_S)
    assert gateway.rate() == pytest.approx(30.0 / (10.0 + LEAST_WINDOW_S))


def test_while_it_is_not_believed_its_rate_stands_still_whatever_it_says(gateway: Gateway):
    gateway.requests -= 1000.0  # it went back
    gateway.tell()
    for jump in (0.0, 9000.0, 200.0):
        gateway.requests += jump
        gateway.tell()
        assert gateway.trouble() == "its totals went back though it did not restart"
        assert gateway.rate(60.0) == pytest.approx(10.0)
        assert gateway.rate(200.0) == pytest.approx(10.0)
        assert gateway.totals.true_at_s == gateway.now  # it was heard of


def test_its_rate_is_of_what_comes_as_soon_as_it_is_believed_again(gateway: Gateway):
    """The time in which it was not has not passed: no gap without demand, and no heap of it."""
    gateway.requests -= 1000.0
    gateway.tell()
    for _ in range(round(DISTRUST_S / STEP_S)):
        gateway.requests += 77.0
        gateway.tell()
    assert gateway.trouble() == ""
    gateway.serve(30.0, 40.0)
    # The report that ended the distrust counts from the one before it.
    assert gateway.rate(30.0) == pytest.approx(40.0)
    assert gateway.rate(45.0) == pytest.approx((77.0 + 30.0 * 40.0) / 45.0)
    assert gateway.rate(105.0) == pytest.approx((77.0 + 30.0 * 40.0 + 60.0 * 10.0) / 105.0)


def test_of_a_report_that_is_old_its_age_is_taken_off(gateway: Gateway):
    gateway.requests += 15.0 * 10.0
    gateway.tell(after_s=STEP_S + 8.0, age_s=8.0)
    assert gateway.rate(60.0) == pytest.approx(10.0)
    gateway.requests += 600.0
    gateway.tell(after_s=0.0, age_s=8.0)  # the same again, or one that overtook it
    assert gateway.rate(60.0) == pytest.approx(10.0)
    assert gateway.totals.trouble_at(gateway.now + 20.0, 27.0) == "its report is 28 s old"
    assert gateway.totals.trouble_at(gateway.now + 20.0, 28.0) == ""


def test_a_total_that_was_too_high_is_taken_back_with_the_marks_that_have_it(gateway: Gateway):
    gateway.requests += 9000.0  # for one report only
    gateway.tell()
    assert gateway.rate(60.0) > 100.0
    gateway.requests -= 9000.0 - 150.0
    gateway.tell()
    assert gateway.rate(60.0) == pytest.approx(10.0)


def test_where_taking_back_leaves_no_rate_the_totals_of_now_are_the_wrong_ones(gateway: Gateway):
    gateway.requests = 0.0
    gateway.tell()
    assert gateway.rate(60.0) == pytest.approx(10.0)
    assert gateway.totals.offered == pytest.approx(2850.0)


def test_marks_are_kept_for_a_while_and_no_longer(gateway: Gateway):
    gateway.serve(KEPT_S, 20.0)
    assert gateway.rate(10 * KEPT_S) == pytest.approx(20.0)
    kept = gateway.totals.state()["marks"]
    assert kept[0][0] == gateway.now - KEPT_S
    assert len(kept) == round(KEPT_S / STEP_S) + 1


def test_what_is_refused_was_no_demand_when_it_came_either(gateway: Gateway):
    """Refused at once where it had waited: no rate is below zero by that."""
    gateway.serve(60.0, 50.0)
    gateway.refused += 60.0 * 40.0
    gateway.tell()
    assert gateway.rate(60.0) >= 0.0
    assert gateway.rate(75.0) == pytest.approx(60.0 * 10.0 / 75.0, rel=0.3)
    marks = [total for _, total in gateway.totals.state()["marks"]]
    assert marks == sorted(marks)


def test_what_is_shed_is_offered_too(gateway: Gateway):
    gateway.shed += 300.0
    gateway.tell()
    assert gateway.rate(STEP_S) == pytest.approx(20.0)


def test_a_restart_counts_from_zero(gateway: Gateway):
    before = gateway.totals.offered
    gateway.requests = 30.0
    gateway.tell(started_at_s=gateway.now)
    assert gateway.totals.offered == before + 30.0
    assert gateway.trouble() == ""
