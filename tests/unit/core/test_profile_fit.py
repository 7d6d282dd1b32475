"""Profiles from measurements."""

import random

import pytest

from headrace.core.latency import LatencyProfile, Work, attended_pairs
from headrace.core.profile_fit import TERMS, ProfileLearner, fit_profile

TRUE = LatencyProfile("true", "true", 0.006, 2e-5, 1e-9, 2e-4, 3e-8)
PREFILLS = [(u, c) for u in (64, 512, 2048, 8192) for c in (0, 4096)]
BATCHES = [(b, b * c) for b in (1, 2, 4, 8, 16) for c in (200, 4000)]


def samples(noise: float, seed: int = 3):
    rng = random.Random(seed)
    prefill = [(u, c, TRUE.prefill_s(u, c) * rng.lognormvariate(0, noise)) for u, c in PREFILLS]
    decode = [(b, c, TRUE.step_s(b, c) * rng.lognormvariate(0, noise)) for b, c in BATCHES]
    return prefill, decode


def test_exact_samples_give_the_exact_profile():
    prefill, decode = samples(0.0)
    fitted = fit_profile(prefill, decode, "fitted", "probed at start")
    assert (fitted.name, fitted.source) == ("fitted", "probed at start")
    for term in TERMS:
        assert getattr(fitted, term) == pytest.approx(getattr(TRUE, term), rel=1e-6)


def test_noisy_samples_predict_well():
    prefill, decode = samples(0.1)
    fitted = fit_profile(prefill, decode, "fitted", "")
    assert fitted.prefill_s(4000, 1000) == pytest.approx(TRUE.prefill_s(4000, 1000), rel=0.2)
    assert fitted.step_s(6, 12_000) == pytest.approx(TRUE.step_s(6, 12_000), rel=0.2)


def test_coefficients_are_never_negative():
    # Faster with more context: a plain least squares would make per_kv_token_s negative.
    fitted = fit_profile(
        [(100, 0, 0.02), (1000, 0, 0.11), (2000, 0, 0.2)],
        [(1, 100, 0.012), (1, 4000, 0.010), (1, 8000, 0.009)],
        "fitted",
        "",
    )
    assert all(getattr(fitted, term) >= 0.0 for term in TERMS)
    assert fitted.per_kv_token_s == 0.0
    assert fitted.per_prefill_token_s == pytest.approx(1e-4, rel=0.2)


def test_terms_that_cannot_be_told_apart_are_zero():
    fitted = fit_profile([(64, 0, 0.02), (512, 0, 0.1)], [(1, 100, 0.008)], "fitted", "")
    assert fitted.per_attended_token_s == fitted.per_kv_token_s == 0.0


@pytest.mark.parametrize(
    ("prefill", "decode", "message"),
    [
        ([], [(1, 10, 0.01)], "per_prefill_token_s"),
        ([(500, 0, 0.1), (510, 0, 0.1)], [(1, 10, 0.01)], "per_prefill_token_s"),
        ([(64, 0, 0.05), (512, 0, 0.05)], [(1, 10, 0.05)], "did not grow"),
        ([(64, 0, 0.02), (512, 0, 0.1)], [], "per_step_s"),
        ([(64, 0, 0.02), (512, 0, -0.1)], [(1, 10, 0.01)], "positive"),
    ],
    ids=["none", "one-length", "flat", "no-decode", "negative"],
)
def test_refuses_what_supports_no_profile(prefill, decode, message):
    with pytest.raises(ValueError, match=message):
        fit_profile(prefill, decode, "fitted", "")


def prefill_work(uncached: int, ahead: int) -> Work:
    """Behind `ahead` prompts of 1,000 tokens."""
    pairs = attended_pairs(uncached, 0) + ahead * attended_pairs(1000, 0)
    return (1.0 + ahead, uncached + ahead * 1000.0, pairs, 0.0, 0.0)


def test_learns_from_streams_that_queued():
    rng = random.Random(5)
    learner = ProfileLearner("pool", 50)
    profile = None
    for stream in range(50):
        assert profile is None
        assert f"learning, {stream} of 50 streams" in learner.progress
        steps = rng.randrange(10, 200)
        batch = rng.randrange(1, 8)
        decoding = (steps + 2.0, 1500.0, 9e5, steps * batch, steps * batch * 700.0)
        learner.add_decode(decoding, TRUE.seconds(decoding))
        work = prefill_work(rng.randrange(100, 5000), rng.randrange(4))
        profile = learner.add_prefill(work, TRUE.seconds(work))
    assert profile is not None
    assert profile.source == "learned from 50 streams"
    assert profile.prefill_s(3000) == pytest.approx(TRUE.prefill_s(3000), rel=0.02)
    assert profile.step_s(5, 3500) == pytest.approx(TRUE.step_s(5, 3500), rel=0.02)


def test_learns_where_all_prompts_are_alike():
    learner = ProfileLearner("pool", 10)
    profile = None
    for _ in range(10):
        work = prefill_work(1000, 0)
        profile = learner.add_prefill(work, 0.1)
    assert profile is not None
    assert profile.prefill_s(1000) == pytest.approx(0.1, rel=0.01)
    assert profile.prefill_s(2000) > profile.prefill_s(1000)
