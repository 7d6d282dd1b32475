"""The linear model and its online correction."""

import pytest

from headrace.core.latency import (
    HALF_LIFE_S,
    HIGHEST_FACTOR,
    LOWEST_FACTOR,
    LatencyProfile,
    PoolLatency,
    ReplicaLatency,
)

PROFILE = LatencyProfile("p", "profile p", 0.01, 1e-4, 1e-8, 1e-3, 1e-7)


def replicas(count: int) -> list[ReplicaLatency]:
    pool = PoolLatency(PROFILE)
    return [ReplicaLatency(pool) for _ in range(count)]


def observe(replica: ReplicaLatency, ratio: float, times: int, now: float, every_s: float = 1.0):
    for _ in range(times):
        now += every_s
        replica.observe_prefill(ratio * 0.2, 0.2, now)
    return now


def prefill_factor(replica: ReplicaLatency, now: float) -> float:
    replica.refresh(now)
    return replica.prefill_factor


def test_formulas():
    assert PROFILE.prefill_s(1000, 500) == pytest.approx(0.01 + 0.1 + 1e-8 * 1000 * (500 + 500))
    assert PROFILE.step_s(4, 2000) == pytest.approx(0.01 + 4e-3 + 2e-4)
    work = (2.0, 1000.0, 1e6, 4.0, 2000.0)
    assert PROFILE.seconds(work) == pytest.approx(0.02 + 0.1 + 0.01 + 4e-3 + 2e-4)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf")])
def test_a_coefficient_is_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="per_sequence_s is"):
        LatencyProfile("p", "s", 0.01, 1e-4, per_sequence_s=value)


def test_a_profile_prices_prefill():
    with pytest.raises(ValueError, match="per_prefill_token_s and per_attended_token_s"):
        LatencyProfile("p", "s", 0.01, 0.0)


def test_a_slow_replica_is_told_from_its_pool():
    slow, fast = replicas(2)
    now = 0.0
    for _ in range(30):
        now = observe(slow, 3.0, 1, now)
        now = observe(fast, 1.0, 1, now)
    assert 2.2 < prefill_factor(slow, now) < 3.2
    assert 0.8 < prefill_factor(fast, now) < 1.4


def test_a_new_replica_is_taken_for_what_the_pool_is():
    known, new = replicas(2)
    now = observe(known, 2.0, 100, 0.0)
    assert prefill_factor(new, now) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(("ratio", "bound"), [(50.0, HIGHEST_FACTOR), (0.01, LOWEST_FACTOR)])
def test_factors_stay_within_their_bounds(ratio, bound):
    (replica,) = replicas(1)
    now = observe(replica, ratio, 500, 0.0)
    assert prefill_factor(replica, now) == pytest.approx(bound, rel=0.05)
    assert LOWEST_FACTOR <= prefill_factor(replica, now) <= HIGHEST_FACTOR


def test_one_outlier_hardly_moves_a_known_replica():
    (replica,) = replicas(1)
    now = observe(replica, 1.0, 50, 0.0)
    replica.observe_prefill(20.0, 0.2, now)
    assert prefill_factor(replica, now) < 1.1


def test_one_sample_is_shrunk_to_the_pool():
    slow, other = replicas(2)
    now = observe(other, 1.0, 50, 0.0)
    slow.observe_prefill(0.8, 0.2, now)
    assert prefill_factor(slow, now) < 1.3


def test_a_deviation_halves_every_minute_without_samples():
    slow, other = replicas(2)
    now = 0.0
    for _ in range(40):
        now = observe(other, 1.0, 9, now, 0.1)
        now = observe(slow, 3.0, 1, now, 0.1)
    pool = prefill_factor(replicas_of_the_same_pool(slow), now)
    before = prefill_factor(slow, now) / pool
    later = prefill_factor(slow, now + HALF_LIFE_S) / pool
    much_later = prefill_factor(slow, now + 3 * HALF_LIFE_S) / pool
    assert before > 1.8
    assert later <= before**0.5
    assert much_later <= before**0.125


def replicas_of_the_same_pool(replica: ReplicaLatency) -> ReplicaLatency:
    return ReplicaLatency(replica.pool)


def test_phases_are_corrected_apart():
    (replica,) = replicas(1)
    now = observe(replica, 3.0, 50, 0.0)
    prefill_factor(replica, now)
    assert replica.decode_factor == 1.0
    for _ in range(50):
        now += 1.0
        replica.observe_decode(0.5, 1.0, now)
    replica.refresh(now)
    assert replica.decode_factor == pytest.approx(0.5, rel=0.1)


def test_short_phases_count_less():
    long, short = (replicas(1)[0] for _ in range(2))
    long.observe_prefill(0.4, 0.2, 1.0)
    short.observe_prefill(0.002, 0.001, 1.0)
    assert prefill_factor(long, 1.0) > prefill_factor(short, 1.0) > 1.0


def test_noise_does_not_make_one_replica_the_favourite():
    a, b = replicas(2)
    now = 0.0
    for _ in range(50):
        now = observe(a, 0.97, 1, now)
        now = observe(b, 1.03, 1, now)
    assert prefill_factor(a, now) == prefill_factor(b, now)


def test_a_replica_that_decodes_a_little_slower_is_told_from_its_pool():
    """An answer is a mean over many steps, and near a target a twentieth decides."""
    slow, fast = replicas(2)
    now = 0.0
    for _ in range(30):
        now += 1.0
        slow.observe_decode(1.05 * 2.0, 2.0, now)
        fast.observe_decode(0.95 * 2.0, 2.0, now)
    slow.refresh(now)
    fast.refresh(now)
    assert 1.06 < slow.decode_factor / fast.decode_factor < 1.11
    assert slow.prefill_factor == fast.prefill_factor == 1.0


def test_impossible_measurements_teach_nothing():
    (replica,) = replicas(1)
    replica.observe_prefill(0.0, 0.2, 1.0)
    replica.observe_prefill(0.2, 0.0, 1.0)
    assert prefill_factor(replica, 1.0) == 1.0
