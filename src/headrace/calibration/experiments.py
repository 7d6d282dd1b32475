"""Doing one experiment, and what it says."""

from __future__ import annotations

import random
from bisect import bisect_left
from itertools import pairwise
from statistics import fmean, median

from headrace.calibration.design import (
    ANSWER_TOKENS,
    SHORTEST_TOKENS,
    PromptExperiment,
    QueueExperiment,
    StreamsExperiment,
)
from headrace.calibration.prompts import Prompt, Prompts
from headrace.calibration.replica import Replica
from headrace.calibration.stream import Asker, StreamError, TimedAnswer
from headrace.core.latency import Work, attended_pairs
from headrace.core.usage_belief import can_be
from headrace.engine_model.calibration_table import DecodePoint, PrefillPoint, QueuePoint

FEWEST_STEPS = 8
"""In common to all streams; a shorter look says little."""
_FIRST_STEP_TOKENS = 512
"""Prompt tokens that a step is believed to take until the engine has shown it."""
_SPARE_STEPS = 4
_FEW_STEPS = 8
"""Of prefill: with no more of them, streams that did not overlap wait for something else."""
_LONGER = 3
"""Times as long, where it did not."""
_WITH_A_STEP = 0.3
"""Of a short step: nearer to a token of the stream beside it, a prompt's token is of the same step,
as in an engine that reads prompts in the steps that it decodes in. In others it is one before."""
_SHORT_STEP_QUANTILE = 0.1
_SLOPE_PASSES = 4
_USUAL_OFF = 2.0
"""Times the median deviation from the line: up to it a token counts in full."""
FEWEST_TOKENS_PER_WORD = 0.25
"""Our words are a token each or more. An engine that counts no prompt would have them grow without
end: each is made as long as the count of the one before it says."""


class NotSideBySide(Exception):
    """The engine did not run so many streams at once; `batch` is how many it did."""

    def __init__(self, batch: int) -> None:
        super().__init__(f"{batch} streams ran side by side, not more")
        self.batch = batch


class NotBeside(Exception):
    """The engine reads no prompts in the steps that it decodes in, or shows none of them."""


class Laboratory:
    """One replica and what has been learned about asking it."""

    def __init__(self, replica: Replica, client: Asker, rng: random.Random) -> None:
        self._replica = replica
        self._client = client
        self._prompts = Prompts(rng)
        self._step_tokens = _FIRST_STEP_TOKENS
        self._queue_steps: dict[QueueExperiment, int] = {}
        self._usage_tells = False  # what was cached; else the metrics must
        self.hits_verified: bool | None = None
        """Whether the engine was seen to say what it found in its cache; None: not asked yet."""
        self.input_tokens = self.output_tokens = 0
        """Of our prompts, and generated for us, so far."""

    async def warm_up(self) -> PrefillPoint:
        """Find out how it is asked, have it compile and allocate what it needs; a first look.

        Raises:
            StreamError: it gives no streamed answer with usage.
        """
        prompt = self._prompts.fresh(64)
        self._note(prompt, await self._client.settle(prompt.text))
        await self._ask(self._prompts.fresh(64))
        answer = await self._ask(self._prompts.fresh(128))
        return _point(answer, answer.usage.cached_tokens)

    async def prompt(self, experiment: PromptExperiment) -> list[PrefillPoint]:
        """A new prompt, then its extensions: one point each. Raises StreamError."""
        prompt = self._prompts.fresh(experiment.tokens)
        answer = await self._ask(prompt)
        points = [_point(answer, answer.usage.cached_tokens)]
        for tokens in experiment.extensions:
            prompt = self._prompts.extended(prompt, tokens)
            cached_before = None if self._usage_tells else await self._cached_total()
            answer = await self._ask(prompt)
            cached = answer.usage.cached_tokens
            if cached:
                self._usage_tells = True
            elif cached_before is not None:
                cached = int((await self._cached_total() or cached_before) - cached_before)
            if cached:
                self.hits_verified = True
            elif self.hits_verified is None:
                self.hits_verified = False
            # Who does not say what was cached may have cached it: no experiment.
            if cached or cached_before is not None:
                points.append(_point(answer, cached))
        return points

    async def streams(self, experiment: StreamsExperiment) -> DecodePoint:
        """Streams side by side: what a step costs while all of them decode.

        Raises:
            NotSideBySide: some waited until others were over.
            StreamError: an answer failed, or they were too short.
        """
        batch, at_once = experiment.batch, 0
        for _ in range(2):
            prompts = [self._prompts.fresh(experiment.context_tokens) for _ in range(batch)]
            # The first decode while the last are prefilled, a step's budget at a time.
            prefill_steps = (batch - 1) * experiment.context_tokens // self._step_tokens
            output_tokens = experiment.steps + prefill_steps + _SPARE_STEPS
            answers = await self._client.together([each.text for each in prompts], output_tokens)
            for prompt, answer in zip(prompts, answers, strict=True):
                self._note(prompt, answer)
            begun, ended = _common(answers)
            if begun < ended:
                self._learn_step_tokens(answers, begun)
                point = _decode_point(answers, begun, ended)
                if point.steps >= FEWEST_STEPS:
                    return point
                self._step_tokens = max(16, min(self._step_tokens, _tokens_a_step(answers, begun)))
                continue
            at_once = sum(answer.content_s[0] <= ended for answer in answers)
            if prefill_steps <= _FEW_STEPS:
                break  # longer answers would not bring them side by side
            self._step_tokens = max(16, self._step_tokens // 8)
        if at_once:
            raise NotSideBySide(at_once)
        raise StreamError(f"{batch} streams were too short to be watched side by side")

    async def queue(self, experiment: QueueExperiment, step_tokens: int | None) -> QueuePoint:
        """Prompts one after the other beside a stream: what all of it took.

        Raises:
            NotBeside: the stream does not count the steps that prompts are read in.
            StreamError: an answer failed, or the stream was over before the prompts.
        """
        steps = self._queue_steps.get(experiment, experiment.steps(step_tokens))
        for _ in range(2):
            lasts = experiment.lasts(steps)
            beside = self._prompts.fresh(SHORTEST_TOKENS)
            prompts = [self._prompts.fresh(experiment.tokens) for _ in range(experiment.prompts)]
            clock, answers = await self._client.beside(
                beside.text,
                lasts,
                [each.text for each in prompts],
                ANSWER_TOKENS,
                experiment.at_once,
            )
            for prompt, answer in zip((beside, *prompts), (clock, *answers), strict=True):
                self._note(prompt, answer)
            ended_s = max(answer.content_s[-1] for answer in answers)
            if ended_s <= clock.content_s[-1]:
                if not _counts_steps(clock, answers):
                    raise NotBeside
                self._queue_steps[experiment] = bisect_left(clock.content_s, ended_s)
                return _queue_point(clock, answers)
            steps = _LONGER * lasts
        raise StreamError("the stream beside the prompts was over before they were")

    async def _ask(self, prompt: Prompt) -> TimedAnswer:
        answer = await self._client.ask(prompt.text, ANSWER_TOKENS)
        self._note(prompt, answer)
        return answer

    def _note(self, prompt: Prompt, answer: TimedAnswer) -> None:
        """Learn of an answer. Raises StreamError if its usage cannot be: all rests on it."""
        usage, events = answer.usage, len(answer.content_s)
        if usage.input_tokens < FEWEST_TOKENS_PER_WORD * prompt.words or not can_be(
            usage, input_tokens=prompt.words, max_tokens=0, chunks=events
        ):
            raise StreamError(
                f"its usage cannot be: {usage.input_tokens:,} prompt tokens for {prompt.words:,} "
                f"words, {usage.output_tokens:,} output tokens in {events:,} events"
            )
        self._prompts.learn(prompt, answer.usage.input_tokens)
        self.input_tokens += answer.usage.input_tokens
        self.output_tokens += answer.usage.output_tokens

    def _learn_step_tokens(self, answers: list[TimedAnswer], begun: float) -> None:
        prefilled = sum(answer.uncached_tokens for answer in answers)
        if prefilled >= 8 * self._step_tokens:
            self._step_tokens = max(16, _tokens_a_step(answers, begun))

    async def _cached_total(self) -> float | None:
        reading = await self._replica.reading()
        found = reading.cached_input_tokens_total
        return reading.prefix_hits_tokens_total if found is None else found


def _point(answer: TimedAnswer, cached_tokens: int) -> PrefillPoint:
    return PrefillPoint(answer.usage.input_tokens - cached_tokens, cached_tokens, answer.ttft_s)


def _queue_point(clock: TimedAnswer, answers: list[TimedAnswer]) -> QueuePoint:
    """From the request of the stream that counts to its last token, after all others'.

    Its first token comes with the first step, each further one with a step, and none of them goes
    by without it.
    """
    steps = len(clock.content_s)
    tokens = pairs = sequences = kv_tokens = 0.0
    for answer in (clock, *answers):
        usage = answer.usage
        tokens += answer.uncached_tokens
        pairs += attended_pairs(answer.uncached_tokens, usage.cached_tokens)
        decoded = usage.output_tokens - 1
        sequences += decoded
        # A step reads what was there before the token that it makes.
        kv_tokens += decoded * (usage.input_tokens + (decoded - 1) / 2)
    work: Work = (float(steps), tokens, pairs, sequences, kv_tokens)
    length = round(fmean(answer.usage.input_tokens for answer in answers))
    return QueuePoint(length, len(answers), work, clock.content_s[-1] - clock.asked_s)


def _counts_steps(clock: TimedAnswer, answers: list[TimedAnswer]) -> bool:
    """Whether the stream has a token of each step in which one of the prompts had its own.

    An engine that lets streams wait while it reads prompts has steps that nobody counts.
    """
    times = clock.content_s
    if len(times) != clock.usage.output_tokens:
        return False
    steps = sorted(later - earlier for earlier, later in pairwise(times))
    short_s = steps[int(_SHORT_STEP_QUANTILE * len(steps))]
    apart: list[float] = []
    for answer in answers:
        at_s = answer.content_s[0]
        after = min(max(bisect_left(times, at_s), 1), len(times) - 1)
        apart.append(min(abs(at_s - times[after - 1]), abs(times[after] - at_s)))
    return median(apart) <= _WITH_A_STEP * short_s


def _tokens_a_step(answers: list[TimedAnswer], begun: float) -> int:
    """Prompt tokens that a step took, at least: half of what it looks like."""
    prefilled = sum(answer.uncached_tokens for answer in answers)
    earlier = max(sum(at_s < begun for at_s in answer.content_s) for answer in answers)
    return prefilled // (2 * max(earlier, 1))


def _common(answers: list[TimedAnswer]) -> tuple[float, float]:
    """When the last one began to decode, and when the first one ended."""
    begun = max(answer.content_s[0] for answer in answers)
    return begun, min(answer.content_s[-1] for answer in answers)


def _decode_point(answers: list[TimedAnswer], begun: float, ended: float) -> DecodePoint:
    """The slope of the lines through all streams' tokens: no single tick decides it."""
    slopes: list[float] = []
    seen: list[float] = []
    context_tokens = 0.0
    for answer in answers:
        within = [i for i, at_s in enumerate(answer.content_s) if begun <= at_s <= ended]
        per_event = answer.tokens_per_event
        # A step reads what was there before the token that it makes.
        middle = (within[0] + within[-1] - 1) / 2 if within else 0.0
        context_tokens += answer.usage.input_tokens + middle * per_event
        if len(within) > 2:
            times = [answer.content_s[i] for i in within]
            slopes.append(_slope(times) / per_event)
            seen.append((len(within) - 1) * per_event)
    if not slopes:
        return DecodePoint(len(answers), context_tokens, 0.0, 0)
    return DecodePoint(len(answers), context_tokens, fmean(slopes), int(fmean(seen)))


def _slope(times: list[float]) -> float:
    """Seconds from one to the next, by least squares that tokens far off the line weigh less in.

    They are late where something else had the processor for a moment (Huber's weights).
    """
    weights = [1.0] * len(times)
    slope = 0.0
    for _ in range(_SLOPE_PASSES):
        total = sum(weights)
        middle = sum(w * i for i, w in enumerate(weights)) / total
        mean = sum(w * at_s for w, at_s in zip(weights, times, strict=True)) / total
        over = sum(
            w * (i - middle) * (at_s - mean)
            for i, (w, at_s) in enumerate(zip(weights, times, strict=True))
        )
        slope = over / sum(w * (i - middle) ** 2 for i, w in enumerate(weights))
        off = [at_s - mean - slope * (i - middle) for i, at_s in enumerate(times)]
        centre = median(off)
        sizes = [abs(each - centre) for each in off]
        usual = max(_USUAL_OFF * median(sizes), 1e-9)
        weights = [min(1.0, usual / size) if size > 0.0 else 1.0 for size in sizes]
    return slope
