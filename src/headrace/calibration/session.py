"""A calibration from the first question to a point for each experiment.

    warm up ─► ladder of prompts, two batches: a rough pace ─► design ─► rounds, each shuffled anew

Every round does every experiment once, in an order of its own, so that a machine that gets slower
meanwhile does so for all of them alike, and does not pass for the cost of a longer prompt.

Of the repetitions the lower quartile counts, in a check the fastest: whatever else a machine does
only ever makes a token later.

The rounds take half of the time. In the other half `refinement` says what makes the terms surest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from headrace.calibration.design import (
    FEWEST_STEPS,
    SHORTEST_TOKENS,
    Experiment,
    Limits,
    PromptExperiment,
    QueueExperiment,
    StreamsExperiment,
    cost_s,
    design,
    few,
)
from headrace.calibration.experiments import Laboratory, NotBeside, NotSideBySide
from headrace.calibration.notebook import Notebook, Points
from headrace.calibration.refinement import refinement
from headrace.calibration.repetitions import FASTEST
from headrace.calibration.replica import CalibrationError, Replica
from headrace.calibration.stream import Asker, StreamError
from headrace.calibration.untold_limit import LEAST_PROMPT_TOKENS, UntoldLimit, longest_prompt
from headrace.core.latency import LatencyProfile
from headrace.core.profile_fit import TERMS, fit_profile
from headrace.engine_model.calibration import Fit, fit
from headrace.engine_model.calibration_table import DecodePoint, Extent, PromptPoint
from headrace.engines.reading import EngineReading

Found = TypeVar("Found")

ROUNDS = 3
ROUNDS_SHARE = 0.5
"""Of the time, what these rounds are designed for."""
NOISY_SHARE, NOISY_TICKS = 0.005, 4.0
"""Experiments off by more of their time, or by more ticks: other work, or unlike the model."""
ROUNDS_BUDGETS = 0.7
"""Budgets after which none of them begins any more that would end later: an engine slower than its
ladder gets fewer, and what makes its terms surest all the same."""
REFINEMENTS = (0.6, 1.0)
"""Rounds of what makes the terms surest: of the time that is left then, so much."""
QUEUE_REACH = 32
"""Times their length: what short prompts show of pairs, be they ever so many, is not believed of
prompts that are longer by more."""
REFINED_BUDGETS = 1.7
"""Budgets after which no more is done to make the terms surer; what is measured is fitted."""
MOST_FAILURES = 3
"""Experiments that may fail in a row."""
PACE_BUDGETS = 1.0
"""Budgets that warming up and finding the pace may take: after more nothing is left to measure
with."""
MOST_BUDGETS = 2.0
"""Budgets that all of it may take, whatever the engine does: an engine slower than its ladder gets
its rounds within that, and one that does not answer is not waited for."""
_ROUND_MARGIN = 1.3
"""Times the last round, what another one may take."""
_LADDER_SHARE = 0.04
"""Of the budget, for the longest prompt."""
_BATCH_SHARE = 0.1
"""For the largest batch."""
_UNTOLD_BATCH = 64
_OTHERS_SHARE, _OTHERS_TOKENS = 0.02, 64
"""Output tokens that were not ours and are let pass: counters may be read a little late."""

Progress = Callable[[str, float, float], None]
"""Takes what is done now, the seconds gone and the seconds in all, as far as they are known."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to measure."""

    budget_s: float = 90.0
    """Seconds that it may take, about."""
    max_batch: int | None = None
    """Streams side by side; as many as the engine says it runs, and at most 64, without it."""
    max_prompt_tokens: int | None = None
    """The longest prompt; by the context limit and the budget without it."""
    timeout_s: float = 300.0
    """For one answer."""
    seed: int = 0
    """Of the texts and of the order."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out: a point for each experiment, and what is to be said about them."""

    prefills: tuple[PromptPoint, ...]
    decodes: tuple[DecodePoint, ...]
    extent: Extent
    max_sequences: int | None
    """Sequences that run at once, as the engine says or showed."""
    rounds: int
    seconds: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What the intervals of a fit do not account for."""


class TooManyFailed(CalibrationError):
    """Experiments failed in a row: the engine is gone, or does not do what it is asked."""


class Session:
    """One run against one replica. Raises CalibrationError where it cannot go on."""

    def __init__(
        self,
        replica: Replica,
        client: Asker,
        settings: Settings,
        progress: Progress,
    ) -> None:
        self._replica = replica
        self._settings = settings
        self._rng = random.Random(settings.seed)  # noqa: S311 - order and texts, no secrets
        self._laboratory = Laboratory(replica, client, self._rng)
        self._progress = progress
        self._clock = client.clock
        self._began_s = client.clock()
        self._notebook = Notebook()
        self._counts_steps = True
        """Whether streams go on while prompts are read, as far as it was seen."""
        self._step_tokens: int | None = None
        self._notes: list[str] = []
        self._warnings: list[str] = []
        self._most_side_by_side: int | None = None
        told = replica.max_context_tokens is not None
        self._untold_limit = UntoldLimit(told=told, notes=self._notes)
        self._doing = "asking whether it is idle"

    @property
    def gone_s(self) -> float:
        """Seconds since the session began."""
        return self._clock() - self._began_s

    async def calibrate(self) -> Measured:
        """Learn the pace, design the experiments, do them."""
        return await self._within(MOST_BUDGETS, self._calibrated())

    async def check(
        self, expected: LatencyProfile, holds: Callable[[Points], bool] = lambda _: True
    ) -> Measured:
        """Look at each term, `ROUNDS` times, at an engine that should be as `expected`.

        Where `holds` says that it is not, it is looked at as often again: what else the machine
        does makes it slower for a while, and the fastest of all looks counts.
        """
        return await self._within(MOST_BUDGETS, self._checked(expected, holds))

    async def _calibrated(self) -> Measured:
        before = await self._replica.check_idle()
        limits, pace = await self._within(PACE_BUDGETS, self._pace())
        left_s = self._settings.budget_s - self.gone_s
        experiments = design(limits, pace, ROUNDS_SHARE * max(left_s, 0.0) / ROUNDS)
        ours_before = self._ours_before(before)
        rounds, round_s = await self._rounds(experiments, pace, ROUNDS_BUDGETS)
        more, pace = await self._refine(experiments, limits, pace, round_s)
        await self._check_alone(before, ours_before)
        self._look_for_stops(pace)
        return self._measured(limits, rounds + more, self._notebook.points(pace))

    async def _checked(self, expected: LatencyProfile, holds: Callable[[Points], bool]) -> Measured:
        before = await self._replica.check_idle()
        self._tell("warming up", self._settings.budget_s)
        seen = await self._within(PACE_BUDGETS, self._guarded(self._laboratory.warm_up()))
        # It may be slower by far: what is done must fit in the budget all the same.
        slower = seen.ttft_s / expected.prefill_s(seen.uncached_tokens, seen.cached_tokens)
        pace = _times(expected, max(1.0, slower))
        limits = self.limits()
        experiments = few(limits, pace, self._settings.budget_s / ROUNDS)
        ours_before = self._ours_before(before)
        rounds, round_s = await self._rounds(experiments, pace, MOST_BUDGETS)
        while (
            rounds < 2 * ROUNDS
            and not holds(self._notebook.points(pace, FASTEST))
            and self.gone_s + _ROUND_MARGIN * round_s < MOST_BUDGETS * self._settings.budget_s
        ):
            begun_s = self.gone_s
            await self._round(experiments, rounds, round_s, pace)
            rounds += 1
            round_s = self.gone_s - begun_s
        await self._check_alone(before, ours_before)
        return self._measured(limits, rounds, self._notebook.points(pace, FASTEST))

    def limits(self) -> Limits:
        """What the engine says that it can take, within the settings."""
        replica, settings = self._replica, self._settings
        longest = replica.max_context_tokens or replica.kv_capacity_tokens or 8192
        longest = longest_prompt(min(longest, replica.kv_capacity_tokens or longest))
        if settings.max_prompt_tokens is not None:
            longest = min(longest, settings.max_prompt_tokens)
        batch = settings.max_batch or _UNTOLD_BATCH
        if self._most_side_by_side is not None:
            batch = min(batch, self._most_side_by_side)
        if replica.max_sequences is not None:
            batch = min(batch, replica.max_sequences)
        if longest < LEAST_PROMPT_TOKENS:
            raise CalibrationError(
                f"prompts of {longest} tokens are too short to measure: start the engine with a "
                "context of 512 tokens or more"
            )
        return Limits(longest, batch, replica.kv_capacity_tokens)

    # ------------------------------------------------------------ how fast is it

    async def _pace(self) -> tuple[Limits, LatencyProfile]:
        """Longer and longer prompts until one takes its share of the budget; then two batches."""
        budget_s = self._settings.budget_s
        self._tell("warming up", budget_s)
        await self._guarded(self._laboratory.warm_up())
        limits = self.limits()
        self._tell("finding the pace", budget_s)
        samples, longest = await self._ladder(limits)
        # Apart in batch and in context, or one would pass for the other.
        tried = [(1, SHORTEST_TOKENS), (1, longest // 2)]
        tried += [(batch, SHORTEST_TOKENS) for batch in _wider(limits.batch)]
        points: list[DecodePoint] = []
        for batch, context_tokens in tried:
            if _ahead_s(points, batch) > _BATCH_SHARE * budget_s:
                break  # what it does with more would take too long to see
            points.append(await self._streams_at_most(batch, context_tokens))
            if points[-1].batch < batch:
                break  # more than this it does not run at once
        decodes = [(each.batch, each.context_tokens, each.step_s) for each in points]
        try:
            pace = fit_profile(samples, decodes, "pace", "ladder")
        except ValueError as error:
            raise CalibrationError(f"{self._replica.url} cannot be measured: {error}") from None
        told = self.limits()
        batch = min(told.batch, max(point.batch for point in points))
        return Limits(min(longest, told.prompt_tokens), batch, told.kv_tokens), pace

    async def _ladder(self, limits: Limits) -> tuple[list[tuple[float, float, float]], int]:
        """Longer and longer prompts: what they took, and the longest there is time or room for."""
        samples: list[tuple[float, float, float]] = []
        self._untold_limit.longest_allowed = limits.prompt_tokens
        tokens, longest_taken = SHORTEST_TOKENS, 0
        while True:
            try:
                (point,) = await self._laboratory.prompt(PromptExperiment(tokens))
            except StreamError as error:
                if self._untold_limit.found_at_first(tokens, longest_taken, error):
                    return samples, self._untold_limit.longest_allowed
                raise CalibrationError(f"{self._replica.url} cannot be measured: {error}") from None
            longest_taken = tokens
            samples.append((point.uncached_tokens, point.cached_tokens, point.ttft_s))
            self._tell("finding the pace", self._settings.budget_s)
            takes_long = point.ttft_s * 3 > _LADDER_SHARE * self._settings.budget_s
            if tokens == limits.prompt_tokens or (takes_long and len(samples) > 2):
                return samples, tokens
            tokens = min(2 * tokens, limits.prompt_tokens)

    async def _streams_at_most(self, batch: int, context_tokens: int) -> DecodePoint:
        """So many streams, or as many as the engine runs at once."""
        for _ in range(3):
            experiment = StreamsExperiment(batch, context_tokens, FEWEST_STEPS)
            try:
                return await self._guarded(self._laboratory.streams(experiment))
            except NotSideBySide as found:
                batch = self._most_side_by_side = max(1, found.batch)
        raise CalibrationError(
            f"{self._replica.url}: streams do not run side by side for long enough; is it idle?"
        )

    # ------------------------------------------------------------ rounds

    async def _rounds(
        self, experiments: Sequence[Experiment], pace: LatencyProfile, budgets: float
    ) -> tuple[int, float]:
        """All experiments, `ROUNDS` times, as far as they are over after so many budgets.

        Returns how many rounds it took, at least one, and the seconds of the last. On a noisy
        engine one look at each says little, so it gets its rounds within reason.
        """
        # By the pace at first, then by what a round took.
        round_s = max(cost_s(experiments, pace), 0.1)
        rounds = 0
        while rounds < ROUNDS and not (
            rounds and self.gone_s + round_s > budgets * self._settings.budget_s
        ):
            begun_s = self.gone_s
            await self._round(experiments, rounds, round_s, pace)
            rounds += 1
            round_s = self.gone_s - begun_s
            if rounds == 1 and budgets < MOST_BUDGETS and self._is_noisy(pace):
                budgets = MOST_BUDGETS
        return rounds, round_s

    def _is_noisy(self, pace: LatencyProfile) -> bool:
        found = fit(*self._notebook.points(pace), self._extent(self.limits()))
        return not isinstance(found, Fit) or any(
            noise.share > NOISY_SHARE or noise.scale > NOISY_TICKS for noise in found.noises
        )

    def _measured(self, limits: Limits, rounds: int, points: Points) -> Measured:
        if self._laboratory.hits_verified is False:
            self._notes.append(
                "no prompt was seen to hit the prefix cache: the engine has none, or does not tell"
            )
        return Measured(
            *points,
            self._extent(limits),
            self._replica.max_sequences or self._most_side_by_side,
            rounds,
            self.gone_s,
            tuple(dict.fromkeys(self._notes)),
            tuple(self._warnings),
        )

    def _ours_before(self, before: EngineReading) -> tuple[int, int]:
        """Of our prompts' tokens, and of those generated for us, those that `before` does not
        count.
        """
        laboratory = self._laboratory
        return (
            laboratory.input_tokens if before.input_tokens_total is None else 0,
            laboratory.output_tokens if before.output_tokens_total is None else 0,
        )

    async def _refine(
        self,
        experiments: Sequence[Experiment],
        limits: Limits,
        pace: LatencyProfile,
        round_s: float,
    ) -> tuple[int, LatencyProfile]:
        """Fill the time that is left with what makes the terms surest.

        Returns how many rounds it took, and the pace as it is known now.
        """
        extent = self._extent(limits)
        self._untold_limit.sure_of(limits.prompt_tokens)
        for number, share in enumerate(REFINEMENTS):
            left_s = share * (self._settings.budget_s - self.gone_s)
            found = fit(*self._notebook.points(pace), extent)
            if not isinstance(found, Fit) or left_s <= 0.0:
                return number, pace
            pace, self._step_tokens = found.latency, found.prefill_step_tokens
            # A round takes longer than its experiments: prompts are made, answers are read.
            slower = max(1.0, round_s / max(cost_s(experiments, pace), 1e-3))
            done = self._notebook.times_done(experiments)
            # What the ladder had no time for may be worth it.
            longest = max(limits.prompt_tokens, self._untold_limit.longest_allowed)
            queues = self._counts_steps and QUEUE_REACH * longest >= extent.context_tokens
            further = replace(limits, prompt_tokens=longest, queues=queues)
            chosen = refinement(done, further, extent, found, left_s / slower)
            if not chosen:
                return number, pace
            if not await self._surer(chosen, ROUNDS + number, left_s, pace):
                return number, pace
        return len(REFINEMENTS), pace

    async def _surer(
        self, chosen: Sequence[Experiment], number: int, round_s: float, pace: LatencyProfile
    ) -> bool:
        """A round that what was measured before does not depend on: whether all of it was done."""
        left_s = REFINED_BUDGETS * self._settings.budget_s - self.gone_s
        try:
            async with asyncio.timeout(left_s):
                await self._round(chosen, number, round_s, pace)
        except TimeoutError:
            said = f"{self._doing} was not over after {self.gone_s:.0f} s"
        except TooManyFailed as error:
            said = str(error)
        else:
            return True
        self._notes.append(f"the terms were not made surer, what was measured is fitted: {said}")
        return False

    async def _round(
        self, experiments: Sequence[Experiment], number: int, round_s: float, pace: LatencyProfile
    ) -> None:
        await self._replica.check_idle()
        order = list(experiments)
        self._rng.shuffle(order)
        begun_s, total = self.gone_s, cost_s(order, pace)
        done = 0.0
        failed: list[str] = []
        rounds_left = max(ROUNDS - number - 1, 0)
        for experiment in order:
            spent_s = self.gone_s - begun_s
            ends_s = begun_s + max(round_s, spent_s) + rounds_left * round_s
            title = f"round {number + 1} of {max(ROUNDS, number + 1)}: {_title(experiment)}"
            self._tell(title, ends_s, begun_s + round_s * done / total)
            if self._untold_limit.is_refused(experiment):
                continue
            try:
                await self._do(experiment)
                failed.clear()
            except (StreamError, NotSideBySide) as error:
                if self._untold_limit.found_later(experiment, error):
                    continue
                failed.append(f"{_title(experiment)}: {error}")
                self._notes.append(f"failed: {failed[-1]}")
                if len(failed) >= MOST_FAILURES:
                    raise TooManyFailed(
                        f"{self._replica.url}: {MOST_FAILURES} experiments in a row failed; "
                        f"{failed[-1]}"
                    ) from None
            done += cost_s([experiment], pace)

    async def _do(self, experiment: Experiment) -> None:
        if isinstance(experiment, StreamsExperiment):
            found = await self._laboratory.streams(experiment)
            self._notebook.note_streams(experiment, found)
            return
        if isinstance(experiment, QueueExperiment):
            await self._do_queue(experiment)
            return
        self._notebook.note_prompts(experiment, await self._laboratory.prompt(experiment))

    async def _do_queue(self, experiment: QueueExperiment) -> None:
        if not self._counts_steps:
            return
        try:
            found = await self._laboratory.queue(experiment, self._step_tokens)
        except NotBeside:
            self._counts_steps = False  # its prompts are measured one by one alone
            return
        self._notebook.note_queue(experiment, found)

    async def _check_alone(self, before: EngineReading, ours_before: tuple[int, int]) -> None:
        """Raise CalibrationError if the engine has worked for others meanwhile."""
        after = await self._replica.reading()
        tokens_before, tokens_after = before.output_tokens_total, after.output_tokens_total
        if tokens_before is None or tokens_after is None:
            lacks = "has no metrics" if tokens_before is None else "does not tell any more"
            self._notes.append(f"the engine {lacks}: whether it was idle is not known")
            return
        if tokens_after < tokens_before:
            self._notes.append("the engine was started anew: whether it was idle is not known")
            return
        ours = self._laboratory.output_tokens - ours_before[1]
        others = tokens_after - tokens_before - ours
        if others > max(_OTHERS_TOKENS, _OTHERS_SHARE * ours):
            raise CalibrationError(
                f"{self._replica.url} generated {others:,.0f} tokens for others meanwhile, so the "
                "times are not its own; take it out of the gateway and measure again"
            )
        asked = 0.0
        if before.input_tokens_total is not None and after.input_tokens_total is not None:
            asked = after.input_tokens_total - before.input_tokens_total
            asked -= self._laboratory.input_tokens - ours_before[0]
        self._warn_of(asked, others, before, after)

    def _warn_of(
        self, asked: float, others: float, before: EngineReading, after: EngineReading
    ) -> None:
        """What is too little to refuse, and yet in the times; and what should not be in them."""
        if max(asked, others) > _OTHERS_TOKENS:
            self._warnings.append(
                f"the engine read {max(asked, 0):,.0f} and generated {max(others, 0):,.0f} tokens "
                "that were not counted as ours: somebody else uses it; take it out of the gateway "
                "and measure again"
            )
        preempted = (after.preemptions_total or 0.0) - (before.preemptions_total or 0.0)
        if preempted > 0.0:
            self._warnings.append(
                f"the engine threw requests out of its KV cache {preempted:,.0f} times: it is too "
                "small for what was measured; give it a larger one, or lower --max-batch or "
                "--max-prompt"
            )

    def _look_for_stops(self, pace: LatencyProfile) -> None:
        """Warn of an engine that was held up."""
        held_up = self._notebook.held_up(pace)
        if held_up:
            self._warnings.append(
                f"{held_up:,} of the measurements took far longer than others of the same kind: "
                "the engine or the machine stood still, or worked for somebody else; measure again"
            )

    def _extent(self, limits: Limits) -> Extent:
        """What the engine may have to do one day; where it does not tell, what was measured."""
        replica = self._replica
        context = replica.max_context_tokens or limits.prompt_tokens
        kv = replica.kv_capacity_tokens or context * limits.batch
        # Not --max-batch: that says what is measured, and no word on what may come.
        sequences = replica.max_sequences or self._most_side_by_side or _UNTOLD_BATCH
        return Extent(min(context, kv), sequences, min(kv, context * sequences))

    def _tell(self, what: str, ends_s: float, at_s: float | None = None) -> None:
        """Show what is done now, and remember it for the case that it does not end."""
        self._doing = what
        self._progress(what, self.gone_s if at_s is None else at_s, ends_s)

    async def _within(self, budgets: float, work: Awaitable[Found]) -> Found:
        """Do work that must be over so many budgets after the session's begin."""
        limit_s = budgets * self._settings.budget_s
        try:
            async with asyncio.timeout(limit_s - self.gone_s):
                return await work
        except TimeoutError:
            found = (
                "is too slow or stopped" if self._laboratory.output_tokens else "does not answer"
            )
            raise CalibrationError(
                f"{self._replica.url} {found}: {self._doing} was not over after {limit_s:g} s; "
                f"look at the engine, or give it more than --budget {self._settings.budget_s:g}"
            ) from None

    async def _guarded(self, work: Awaitable[Found]) -> Found:
        """Do what must not fail."""
        try:
            return await work
        except StreamError as error:
            raise CalibrationError(f"{self._replica.url} cannot be measured: {error}") from None


def _times(profile: LatencyProfile, factor: float) -> LatencyProfile:
    """An engine so many times as slow."""
    slower = {term: factor * getattr(profile, term) for term in TERMS}
    return replace(profile, **slower)


def _wider(most: int) -> list[int]:
    """Batches up to `most`: where nobody tells how many run at once, the first that do not."""
    found = [min(4, most)]
    while found[-1] < most:
        found.append(min(4 * found[-1], most))
    return found


def _ahead_s(points: Sequence[DecodePoint], batch: int) -> float:
    """Seconds that so many short streams may take, by the last two batches."""
    if len(points) < 3:
        return 0.0
    before, last = points[-2:]
    per_sequence_s = (last.step_s - before.step_s) / max(last.batch - before.batch, 1)
    return 2 * FEWEST_STEPS * (last.step_s + max(per_sequence_s, 0.0) * (batch - last.batch))


def _title(experiment: Experiment) -> str:
    if isinstance(experiment, StreamsExperiment):
        return f"decode {experiment.batch} × {experiment.context_tokens:,}"
    if isinstance(experiment, QueueExperiment):
        return f"prefill {experiment.prompts} × {experiment.tokens:,} beside a stream"
    return f"prefill {experiment.tokens:,}"
