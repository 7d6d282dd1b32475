"""The load generator is on time and cheap, on a machine that it shares with a scripted engine.

Figures of a quiet machine with two cores: run this lane alone.
"""

import pytest

from benchmarks.generator_accuracy import ITL_S, TTFT_S, accuracy

pytestmark = pytest.mark.acceptance


def test_at_200_requests_a_second_it_is_poisson_cheap_and_there_at_once():
    found = accuracy(200.0, 20.0)
    print("\n".join(found.lines()))
    assert (found.is_valid, found.failed) == (True, 0)
    assert found.ks < found.ks_critical
    assert found.cpu_per_request_s <= 0.0006
    assert found.first_request_s <= 1.5


def test_at_600_requests_a_second_rate_and_ttft_are_right():
    found = accuracy(600.0, 20.0)
    print("\n".join(found.lines()))
    assert (found.is_valid, found.failed) == (True, 0)
    assert found.requests == pytest.approx(600 * 20, rel=0.05)
    assert found.ttft.p50 == pytest.approx(TTFT_S, abs=0.002)
    assert found.ttft.p99 == pytest.approx(TTFT_S, abs=0.010)
    assert found.tpot.p50 == pytest.approx(ITL_S, rel=0.02)
