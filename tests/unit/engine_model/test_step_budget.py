"""The step's budget of prompt tokens is found whatever it is, and the noise beside it."""

import random
from dataclasses import replace

import pytest

from headrace.core.latency import LatencyProfile
from headrace.core.profile_fit import TERMS
from headrace.engine_model.calibration import Fit, fit
from headrace.engine_model.calibration_table import DecodePoint, Extent, PrefillPoint
from headrace.engine_model.measured import prefill_steps
from headrace.engine_model.noise import learned

EXTENT = Extent(context_tokens=16_384, sequences=32, kv_tokens=200_000)
LENGTHS = (48, 95, 210, 430, 880, 1790, 3700, 7300, 11_200, 15_000)
EXTENDED = ((500, 9000), (3000, 9500), (64, 2000))
BATCHES = ((1, 48), (1, 9000), (4, 4000), (10, 48), (32, 48), (32, 1000))
HIDDEN = LatencyProfile("hidden", "", 0.021, 1.1e-4, 6e-9, 4e-4, 9e-8)


def points(
    step_tokens: int | None,
    *,
    tick_s: float = 0.0,
    share: float = 0.0,
    seed: int = 0,
    hidden: LatencyProfile = HIDDEN,
) -> tuple[list[PrefillPoint], list[DecodePoint]]:
    rng = random.Random(seed)

    def noisy(seconds: float, tick_s: float) -> float:
        return seconds * rng.gauss(1.0, share) + rng.gauss(0.0, tick_s)

    prompts = [*((tokens, 0) for tokens in LENGTHS), *EXTENDED]
    prefills = [
        PrefillPoint(
            uncached,
            cached,
            noisy(
                0.0005
                + hidden.prefill_s(uncached, cached)
                + hidden.per_step_s * (prefill_steps(uncached, step_tokens) - 1),
                tick_s,
            ),
        )
        for uncached, cached in prompts
    ]
    decodes = [
        DecodePoint(
            batch, batch * context, noisy(hidden.step_s(batch, batch * context), tick_s / 100), 64
        )
        for batch, context in BATCHES
    ]
    return prefills, decodes


@pytest.mark.parametrize("step_tokens", [128, 300, 777, 1000, 1024, 3000, 6000, None])
@pytest.mark.parametrize("seed", [0, 1])
def test_any_budget_is_found(step_tokens: int | None, seed: int):
    found = fit(*points(step_tokens, tick_s=0.0003, seed=seed), EXTENT)
    assert isinstance(found, Fit)
    assert found.doubts == ()
    if step_tokens is None:
        assert found.prefill_step_tokens is None
    else:
        # All prompts take as many steps.
        for tokens in LENGTHS:
            steps = prefill_steps(tokens, found.prefill_step_tokens)
            assert steps == prefill_steps(tokens, step_tokens), tokens
    for term, value in zip(TERMS, found.coefficients, strict=True):
        assert value == pytest.approx(getattr(HIDDEN, term), rel=0.03), term


def test_of_budgets_that_cannot_be_told_apart_the_roundest_stands_for_all():
    found = fit(*points(1030, tick_s=0.0001), EXTENT)
    assert isinstance(found, Fit)
    assert found.prefill_step_tokens == 1024
    found = fit(*points(1003, tick_s=0.0001), EXTENT)
    assert isinstance(found, Fit)
    assert found.prefill_step_tokens == 1000


def test_a_noisy_engine_that_takes_prompts_in_one_step_is_given_no_budget():
    found_none = 0
    for seed in range(10):
        found = fit(*points(None, tick_s=0.0005, share=0.01, seed=seed), EXTENT)
        assert isinstance(found, Fit)
        found_none += found.prefill_step_tokens is None
    assert found_none >= 8


def test_long_prompts_count_for_what_they_are_worth():
    """With a tick alone, the longest tell the most; with a share of the time they do not."""
    found = fit(*points(None, tick_s=0.0005), EXTENT)
    assert isinstance(found, Fit)
    interval = found.intervals["per_attended_token_s"]
    assert (interval.high_s - interval.low_s) / HIDDEN.per_attended_token_s < 0.04
    found = fit(*points(None, tick_s=0.0005, share=0.02), EXTENT)
    assert isinstance(found, Fit)
    interval = found.intervals["per_attended_token_s"]
    assert (interval.high_s - interval.low_s) / HIDDEN.per_attended_token_s > 0.04


def test_noise_is_told_apart_by_what_it_grows_with():
    rng = random.Random(3)
    seconds = [0.01 * 1.4**k for k in range(20)]
    ticks = [0.0005] * 20
    by_tick = learned([rng.gauss(0, 0.001) for _ in seconds], ticks, seconds, [1.0] * 20)
    assert by_tick.scale == pytest.approx(2.0, rel=0.5)
    assert by_tick.sigma_s(0.0005, seconds[-1]) < 0.004
    by_share = learned([s * rng.gauss(0, 0.02) for s in seconds], ticks, seconds, [1.0] * 20)
    assert by_share.sigma_s(0.0005, seconds[-1]) == pytest.approx(0.02 * seconds[-1], rel=0.6)


def test_a_term_that_is_not_sure_is_marked_with_how_far_it_may_be_off():
    prefills, decodes = points(None, tick_s=0.0005)
    short = [each for each in prefills if each.uncached_tokens < 4000 and not each.cached_tokens]
    found = fit(short, decodes, replace(EXTENT, context_tokens=4096))
    assert isinstance(found, Fit)
    interval = found.intervals["per_attended_token_s"]
    assert "not surer than ±" in interval.note
    assert found.intervals["per_step_s"].note == ""


@pytest.mark.parametrize(("tick_s", "matters"), [(0.0004, True), (0.0002, False)])
def test_a_term_that_would_be_written_as_0_must_not_matter_at_the_limits(
    tick_s: float, matters: bool
):
    """Pairs cost nothing, and may bring 18 or 7 % of a prompt of 16,384 for all that is known."""
    linear = replace(HIDDEN, per_attended_token_s=0.0)
    prefills, decodes = points(None, tick_s=tick_s, seed=2, hidden=linear)
    short = [each for each in prefills if each.uncached_tokens < 1800 and not each.cached_tokens]
    found = fit(short, decodes, EXTENT)
    assert isinstance(found, Fit)
    assert found.coefficients[2] == 0.0
    assert [doubt.term for doubt in found.doubts] == ["per_attended_token_s"] * matters
    assert all("measure longer ones" in doubt.remedy for doubt in found.doubts)
