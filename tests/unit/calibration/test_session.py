"""A whole calibration against an engine whose coefficients are known, in virtual time."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import NoReturn

import pytest

from headrace.calibration import session as calibrating
from headrace.calibration.comparison import Comparison, compare
from headrace.calibration.replica import CalibrationError, Replica
from headrace.calibration.session import ROUNDS, Measured, Session, Settings
from headrace.calibration.stream import StreamError, TimedAnswer
from headrace.core.latency import LatencyProfile
from headrace.core.profile_fit import TERMS
from headrace.emulator.prompt import BYTES_PER_TOKEN
from headrace.engine_model import EngineSpec
from headrace.engine_model.calibration import Fit, fit
from headrace.engine_model.calibration_table import PrefillPoint
from headrace.engine_model.measured import MeasuredProfile
from headrace.engine_model.profiles import profile
from headrace.engines.reading import EngineReading
from tests.unit.calibration.virtual_engine import VirtualEngine, replica_of

OVERHEAD_S = 0.0012
HANG_S = 20.0
TICK_S = 0.001
"""What a loop that wakes by the millisecond adds, anything from nothing to this."""


def spec(*coefficients: float, **limits: int) -> EngineSpec:
    latency = LatencyProfile("hidden", "made up", *coefficients)
    return EngineSpec(latency, limits.pop("kv_capacity_tokens", 400_000), **limits)


HIDDEN = {
    "h100": profile("h100-llama-3.1-8b"),
    "l4": profile("l4-llama-3.1-8b"),
    "70b on a100": profile("a100-80g-llama-3.3-70b-tp4"),
    "dear sequences": spec(0.003, 5e-5, 4e-9, 2.5e-3, 2e-9 * 5, max_sequences=16),
    "dear context": spec(0.02, 1e-5, 2e-8, 1e-4, 6e-7),
    "laptop": spec(0.004, 2e-3, 1.5e-6, 9e-3, 1.2e-6, kv_capacity_tokens=16_384, max_sequences=4),
    "small steps": spec(0.012, 8e-5, 1e-9, 3e-4, 8e-8, max_batched_tokens=512),
}
CONTEXT_TOKENS = {"laptop": 4096}


async def calibrated(
    name: str, *, budget_s: float = 90.0, seed: int = 0, tells_sequences: bool = True
) -> tuple[Measured, VirtualEngine]:
    engine_spec = HIDDEN[name]
    engine = VirtualEngine(engine_spec, overhead_s=OVERHEAD_S, tick_s=TICK_S, seed=seed)
    replica = replica_of(
        engine_spec,
        max_context_tokens=CONTEXT_TOKENS.get(name, 32_768),
        tells_sequences=tells_sequences and engine_spec.max_sequences <= 64,
    )
    settings = Settings(budget_s=budget_s, seed=seed)
    session = Session(replica, engine, settings, lambda *_: None)
    return await session.calibrate(), engine


@pytest.mark.parametrize("name", HIDDEN)
async def test_hidden_coefficients_are_recovered_within_3_percent(name: str):
    budget_s = 400.0 if name == "laptop" else 90.0
    measured, engine = await calibrated(name, budget_s=budget_s)
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert isinstance(found, Fit)
    assert found.doubts == ()
    for term, value in zip(TERMS, found.coefficients, strict=True):
        hidden = getattr(HIDDEN[name].latency, term)
        assert value == pytest.approx(hidden, rel=0.03), term
        interval = found.intervals[term]
        assert interval.low_s <= value <= interval.high_s
    assert found.overhead_s == pytest.approx(OVERHEAD_S + TICK_S / 2, abs=0.001)
    if HIDDEN[name].max_batched_tokens < 8192:
        assert found.prefill_step_tokens == HIDDEN[name].max_batched_tokens
    assert measured.rounds >= ROUNDS
    assert engine.now < 1.5 * budget_s


async def test_the_same_seed_measures_the_same():
    first, _ = await calibrated("small steps", seed=3)
    again, _ = await calibrated("small steps", seed=3)
    assert first == again
    other, _ = await calibrated("small steps", seed=4)
    assert first != other


async def test_how_many_run_at_once_is_found_out_where_nobody_tells():
    measured, _ = await calibrated("laptop", budget_s=400.0, tells_sequences=False)
    assert measured.max_sequences == 4
    assert measured.extent.sequences == 4
    assert max(point.batch for point in measured.decodes) == 4


@pytest.mark.parametrize("tells_sequences", [True, False])
async def test_streams_that_were_not_to_be_measured_are_no_engine_of_one_sequence(
    tells_sequences: bool,
):
    engine = VirtualEngine(HIDDEN["laptop"], overhead_s=OVERHEAD_S, tick_s=TICK_S)
    replica = replica_of(HIDDEN["laptop"], max_context_tokens=4096, tells_sequences=tells_sequences)
    settings = Settings(budget_s=400.0, max_batch=1)
    measured = await Session(replica, engine, settings, lambda *_: None).calibrate()
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert not isinstance(found, Fit)
    (doubt,) = found
    assert str(doubt).startswith("per_sequence_s: no two streams ran side by side; ")


async def session_of(engine_spec: EngineSpec, settings: Settings, context_tokens: int) -> Session:
    engine = VirtualEngine(engine_spec, overhead_s=OVERHEAD_S, tick_s=TICK_S)
    replica = replica_of(engine_spec, max_context_tokens=context_tokens, tells_sequences=True)
    return Session(replica, engine, settings, lambda *_: None)


async def test_prompts_too_short_for_what_the_engine_may_be_asked_are_refused_by_term():
    session = await session_of(HIDDEN["h100"], Settings(max_prompt_tokens=200), 32_768)
    measured = await session.calibrate()
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert isinstance(found, Fit)
    doubts = {doubt.term: str(doubt) for doubt in found.doubts}
    assert "a prompt of 32,768 tokens may be off by" in doubts["per_attended_token_s"]
    assert "measure longer ones" in doubts["per_attended_token_s"]
    assert "per_prefill_token_s" not in doubts


async def test_dear_steps_do_not_shorten_the_prompts():
    hidden = spec(0.2, 5e-5, 1e-9, 1e-3, 1e-8, max_sequences=64)
    session = await session_of(hidden, Settings(), 32_768)
    measured = await session.calibrate()
    assert max(point.uncached_tokens for point in measured.prefills) > 4096
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert isinstance(found, Fit)
    assert found.doubts == ()
    assert found.coefficients[:2] == pytest.approx((0.2, 5e-5), rel=0.03)
    assert measured.seconds < 2 * 90.0


async def test_a_term_that_is_zero_is_said_to_be_not_told_from_it():
    hidden = spec(0.008, 1e-4, 0.0, 1e-3, 0.0, max_sequences=16)
    session = await session_of(hidden, Settings(), 8192)
    measured = await session.calibrate()
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert isinstance(found, Fit)
    assert found.doubts == ()
    for term in ("per_attended_token_s", "per_kv_token_s"):
        assert found.coefficients[TERMS.index(term)] == 0.0
        assert found.intervals[term].low_s == 0.0
        assert "taken for 0" in found.intervals[term].note


async def test_one_sequence_at_a_time_is_a_part_of_the_step():
    hidden = spec(0.008, 1e-4, 2e-8, 1e-3, 1e-7, max_sequences=1)
    session = await session_of(hidden, Settings(), 8192)
    measured = await session.calibrate()
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert isinstance(found, Fit)
    assert "one sequence at a time" in found.intervals["per_sequence_s"].note
    assert found.coefficients[0] == pytest.approx(0.009, rel=0.01)


async def test_a_context_too_short_for_anything_is_refused_before_it_is_measured():
    session = await session_of(HIDDEN["laptop"], Settings(), 128)
    with pytest.raises(CalibrationError, match="context of 512 tokens or more"):
        await session.calibrate()


async def checked(engine_spec: EngineSpec, **other: float) -> Comparison:
    """The engine against a profile that says what it is but for `other`."""
    session = await session_of(engine_spec, Settings(budget_s=20.0), 8192)
    values = {term: getattr(engine_spec.latency, term) for term in TERMS} | other
    known = MeasuredProfile(
        "known",
        values["per_step_s"],
        values["per_prefill_token_s"],
        values["per_attended_token_s"],
        values["per_sequence_s"],
        values["per_kv_token_s"],
        request_overhead_s=OVERHEAD_S,
        prefill_step_tokens=engine_spec.max_batched_tokens,
    )
    measured = await session.check(known.latency)
    return compare(known, measured.prefills, measured.decodes, 0.2)


async def test_a_check_holds_for_the_engine_itself():
    comparison = await checked(HIDDEN["small steps"])
    assert comparison.holds
    assert comparison.decode_error < 0.01
    assert max(row.measured_s for row in comparison.prefills) < 20.0 / ROUNDS


@pytest.mark.parametrize("term", ["per_prefill_token_s", "per_step_s"])
async def test_a_check_fails_in_the_phase_that_has_changed(term: str):
    was = getattr(HIDDEN["small steps"].latency, term)
    comparison = await checked(HIDDEN["small steps"], **{term: was / 2})
    assert not comparison.holds
    slower, same = comparison.prefill_error, comparison.decode_error
    if term == "per_step_s":
        slower, same = same, slower
    else:
        assert same < 0.2
    assert slower > 0.2


@pytest.mark.parametrize("factor", [0.8, 1.2])
async def test_a_fifth_faster_and_a_fifth_slower_are_as_far_off(factor: float):
    terms = {term: getattr(HIDDEN["small steps"].latency, term) / factor for term in TERMS}
    comparison = await checked(HIDDEN["small steps"], **terms)
    for change in (comparison.prefill_change, comparison.decode_change):
        assert change == pytest.approx(factor - 1, abs=0.03)
    for error in (comparison.prefill_error, comparison.decode_error):
        assert error == pytest.approx(max(factor, 1 / factor) - 1, abs=0.03)


class Disturbed(VirtualEngine):
    """Slower by a factor until some time, as beside another process."""

    def __init__(self, engine_spec: EngineSpec, until_s: float, factor: float = 1.5) -> None:
        super().__init__(engine_spec, overhead_s=OVERHEAD_S, tick_s=TICK_S)
        self._until_s, self._factor = until_s, factor

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        answers = await super().together(prompts, output_tokens)
        if answers[0].asked_s > self._until_s:
            return answers
        return [
            replace(
                answer,
                content_s=tuple(
                    answer.asked_s + self._factor * (at_s - answer.asked_s)
                    for at_s in answer.content_s
                ),
            )
            for answer in answers
        ]


@pytest.mark.parametrize(
    ("until_s", "factor", "holds"), [(0.0, 1.5, True), (16.0, 1.5, True), (1e9, 1.2, False)]
)
async def test_a_check_is_not_failed_by_what_passes_and_not_blind_to_what_stays(
    until_s: float, factor: float, holds: bool
):
    hidden = HIDDEN["small steps"]
    known = MeasuredProfile.of(hidden)
    replica = replica_of(hidden, max_context_tokens=8192, tells_sequences=True)
    engine = Disturbed(hidden, until_s, factor)
    session = Session(replica, engine, Settings(budget_s=20.0), lambda *_: None)
    measured = await session.check(
        known.latency, lambda points: compare(known, *points, 0.15).holds
    )
    assert compare(known, measured.prefills, measured.decodes, 0.15).holds is holds
    assert (measured.rounds == ROUNDS) is (until_s == 0.0)
    assert engine.now < 2 * 20.0


class Shaken(VirtualEngine):
    """Each answer takes anything up to a third longer, as on a processor that is shared."""

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        answers = await super().together(prompts, output_tokens)
        factor = 1.0 + self.rng.uniform(0.0, 0.3)
        return [
            replace(
                answer,
                content_s=tuple(
                    answer.asked_s + factor * (at_s - answer.asked_s) for at_s in answer.content_s
                ),
            )
            for answer in answers
        ]


@pytest.mark.parametrize(("kind", "rounds"), [(VirtualEngine, 1), (Shaken, ROUNDS)])
async def test_a_slow_engine_that_is_noisy_gets_its_rounds(kind: type[VirtualEngine], rounds: int):
    """One that is not has the time for what makes its terms surest instead."""
    hidden = spec(0.2, 4e-4, 1e-8, 2e-3, 1e-7, max_sequences=64)
    replica = replica_of(hidden, max_context_tokens=32_768, tells_sequences=True)
    shown: list[str] = []
    engine = kind(hidden, overhead_s=OVERHEAD_S, tick_s=TICK_S)
    session = Session(replica, engine, Settings(), lambda what, *_: shown.append(what))
    await session.calibrate()
    base = {what.partition(":")[0] for what in shown if what.startswith("round")}
    assert len(base & {f"round {k} of 3" for k in (1, 2, 3)}) == rounds
    assert engine.now < 2 * 90.0


class UntoldLimit(VirtualEngine):
    """Refuses what is longer than its context, of which it says nothing."""

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        if any(len(prompt) // BYTES_PER_TOKEN + output_tokens > 1600 for prompt in prompts):
            raise StreamError("HTTP 400: maximum context length is 1600", 400)
        return await super().together(prompts, output_tokens)


async def test_an_untold_limit_of_the_context_is_found_out():
    hidden = HIDDEN["dear sequences"]
    replica = replica_of(hidden, max_context_tokens=1, tells_sequences=True)
    engine = UntoldLimit(hidden, overhead_s=OVERHEAD_S, tick_s=TICK_S)
    told = replace(replica, max_context_tokens=None)
    measured = await Session(told, engine, Settings(), lambda *_: None).calibrate()
    (note,) = [note for note in measured.notes if "refused" in note]
    assert "maximum context length is 1600): they go up to 1,363; give --max-prompt" in note
    assert not any(note.startswith("failed") for note in measured.notes)
    assert max(point.uncached_tokens for point in measured.prefills) > 1000


async def test_a_limit_that_the_ladder_had_no_time_to_find_costs_no_calibration():
    class Short(VirtualEngine):
        async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
            if any(len(prompt) // BYTES_PER_TOKEN > 1024 for prompt in prompts):
                raise StreamError("HTTP 400: too long", 400)
            return await super().together(prompts, output_tokens)

    hidden = spec(0.02, 1.5e-3, 5e-7, 1e-3, 1e-8, max_sequences=16)
    replica = replace(
        replica_of(hidden, max_context_tokens=1, tells_sequences=True),
        max_context_tokens=None,
        kv_capacity_tokens=None,
    )
    engine = Short(hidden, overhead_s=OVERHEAD_S, tick_s=TICK_S, seed=1)
    measured = await Session(replica, engine, Settings(seed=1), lambda *_: None).calibrate()
    assert not any(note.startswith("failed") for note in measured.notes)
    assert any("was refused (HTTP 400: too long)" in note for note in measured.notes)
    assert 80.0 < engine.now < 100.0


async def test_an_engine_that_refuses_short_prompts_is_quoted():
    class Refuses(VirtualEngine):
        async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
            if self.asked:
                raise StreamError("HTTP 400: no", 400)
            return await super().together(prompts, output_tokens)

    hidden = HIDDEN["dear sequences"]
    replica = replica_of(hidden, max_context_tokens=2048, tells_sequences=True)
    session = Session(replica, Refuses(hidden), Settings(), lambda *_: None)
    with pytest.raises(CalibrationError, match="cannot be measured: HTTP 400: no"):
        await session.calibrate()


class SilentEngine(VirtualEngine):
    """Answers so many times and then takes whatever is asked without a word."""

    def __init__(self, answers: int) -> None:
        super().__init__(HIDDEN["h100"], overhead_s=OVERHEAD_S, tick_s=TICK_S)
        self._answers = answers

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        if self.asked >= self._answers:
            await self._never()
        return await super().together(prompts, output_tokens)

    def silence(self) -> None:
        """Answer no more."""
        self._answers = 0

    async def _never(self) -> NoReturn:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (0, "does not answer: warming up was not over after 0.2 s; look at the engine, or give"),
        (
            4,
            "slow or stopped: finding the pace was not over after 0.2 s; .* than --budget 0.2$",
        ),
    ],
)
async def test_an_engine_that_does_not_answer_is_not_waited_for(answers: int, said: str):
    replica = replica_of(HIDDEN["h100"], max_context_tokens=32_768, tells_sequences=True)
    session = Session(replica, SilentEngine(answers), Settings(budget_s=0.2), lambda *_: None)
    async with asyncio.timeout(HANG_S):
        with pytest.raises(CalibrationError, match=said):
            await session.calibrate()


async def test_a_check_does_not_wait_for_it_either():
    replica = replica_of(HIDDEN["h100"], max_context_tokens=32_768, tells_sequences=True)
    session = Session(replica, SilentEngine(0), Settings(budget_s=0.2), lambda *_: None)
    async with asyncio.timeout(HANG_S):
        with pytest.raises(CalibrationError, match="does not answer: warming up"):
            await session.check(HIDDEN["h100"].latency)


async def test_an_engine_that_stops_within_the_rounds_ends_it_after_two_budgets():
    engine_spec = HIDDEN["h100"]
    replica = replica_of(engine_spec, max_context_tokens=32_768, tells_sequences=True)
    seen: list[str] = []

    def show(what: str, *_: float) -> None:
        seen.append(what)
        if what.startswith("round 1"):
            engine.silence()

    engine = SilentEngine(10**6)
    session = Session(replica, engine, Settings(budget_s=1.0), show)
    async with asyncio.timeout(HANG_S):
        with pytest.raises(
            CalibrationError, match=r"slow or stopped: round 1 .* not over after 2 s"
        ):
            await session.calibrate()


@pytest.mark.parametrize(
    ("told", "note"),
    [
        ([None], "has no metrics"),
        ([5.0, None], "does not tell any more"),
        ([1e9, 5.0], "was started anew"),
    ],
    ids=["never", "gone at the end", "from the beginning"],
)
async def test_where_nobody_tells_whether_it_was_idle_the_note_says_why(
    monkeypatch: pytest.MonkeyPatch, told: list[float | None], note: str
):
    readings = list(told)

    async def reading(_replica: Replica) -> EngineReading:
        return EngineReading(output_tokens_total=readings.pop(0) if len(readings) > 1 else told[-1])

    monkeypatch.setattr(Replica, "reading", reading)
    monkeypatch.setattr(Replica, "check_idle", reading)
    engine = VirtualEngine(HIDDEN["h100"], overhead_s=OVERHEAD_S, tick_s=TICK_S)
    replica = replica_of(HIDDEN["h100"], max_context_tokens=32_768, tells_sequences=True)
    session = Session(replica, engine, Settings(budget_s=90.0), lambda *_: None)
    notes = (await session.calibrate()).notes
    assert f"the engine {note}: whether it was idle is not known" in notes


class Fails(VirtualEngine):
    """Does what it is asked until the terms are made surer, then nothing, by `how`."""

    def __init__(self, how: str) -> None:
        super().__init__(HIDDEN["small steps"], overhead_s=OVERHEAD_S, tick_s=TICK_S)
        self._how = how
        self.fails = False

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        if self.fails:
            await self._fail()
        return await super().together(prompts, output_tokens)

    async def beside(
        self, first: str, first_tokens: int, prompts: list[str], output_tokens: int, at_once: int
    ) -> tuple[TimedAnswer, list[TimedAnswer]]:
        if self.fails:
            await self._fail()
        return await super().beside(first, first_tokens, prompts, output_tokens, at_once)

    async def _fail(self) -> None:
        if self._how == "refuses":
            raise StreamError("HTTP 500: out of memory", 500)
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("how", "said"), [("refuses", "3 experiments in a row failed; "), ("is silent", "was not over")]
)
async def test_rounds_that_are_finished_are_fitted_though_nothing_after_them_is_measured(
    monkeypatch: pytest.MonkeyPatch, how: str, said: str
):
    engine = Fails(how)

    def show(what: str, *_: float) -> None:
        engine.fails = what.startswith(f"round {ROUNDS + 1}")

    if how == "is silent":  # in real time: the virtual one stands still with it
        monkeypatch.setattr(calibrating, "REFINED_BUDGETS", 0.0)
    replica = replica_of(HIDDEN["small steps"], max_context_tokens=8192, tells_sequences=True)
    session = Session(replica, engine, Settings(), show)
    async with asyncio.timeout(HANG_S):
        measured = await session.calibrate()
    (note,) = [each for each in measured.notes if "what was measured is fitted" in each]
    assert said in note
    assert measured.rounds == ROUNDS
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert isinstance(found, Fit)
    assert found.coefficients[0] == pytest.approx(0.012, rel=0.03)


class Waits(VirtualEngine):
    """Lets its streams wait while it reads prompts, so their tokens do not count the steps."""

    async def beside(
        self, first: str, first_tokens: int, prompts: list[str], output_tokens: int, at_once: int
    ) -> tuple[TimedAnswer, list[TimedAnswer]]:
        clock, answers = await super().beside(first, first_tokens, prompts, output_tokens, at_once)
        step_s = min(later - earlier for earlier, later in pairwise(clock.content_s))
        apart = [
            replace(each, content_s=tuple(at_s - step_s for at_s in each.content_s))
            for each in answers
        ]
        return clock, apart


async def test_an_engine_whose_streams_wait_is_measured_by_single_prompts():
    hidden = HIDDEN["dear sequences"]
    engine = Waits(hidden, overhead_s=OVERHEAD_S, tick_s=TICK_S)
    replica = replica_of(hidden, max_context_tokens=8192, tells_sequences=True)
    measured = await Session(replica, engine, Settings(), lambda *_: None).calibrate()
    assert all(isinstance(point, PrefillPoint) for point in measured.prefills)
    assert not any("failed" in note for note in measured.notes)
    found = fit(measured.prefills, measured.decodes, measured.extent)
    assert isinstance(found, Fit)
    assert found.doubts == ()
