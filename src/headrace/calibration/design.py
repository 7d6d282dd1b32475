"""Which experiments: spread so that each term of the model moves while the others stand still.

Lengths are geometric, since a term of the square and one of the length itself differ at the ends;
prompts that are extended see pairs of cached tokens; batches are crossed with short and long
contexts, so that a sequence is not mistaken for what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from headrace.core.latency import LatencyProfile, Work, attended_pairs
from headrace.engine_model.measured import prefill_steps

SHORTEST_TOKENS = 48
ANSWER_TOKENS = 2
"""Of a prompt's experiment: the first may be a piece of a character and not show."""
FEWEST_STEPS, MOST_STEPS = 12, 64
_QUEUE_MARGIN, _QUEUE_SPARE_STEPS = 1.15, 6
"""Times the steps that a queue is taken to need, and so many more."""
_TURN_STEPS = 3
"""Of a prompt besides its own: its second token, its end, the way of the next one."""
CHEAP_S, CHEAP_SHARE, MOST_REPEATS = 0.15, 0.01, 3
"""What fits three times in so many seconds, or in so much of a round, is done up to three times."""
HARDLY_MORE = 1.1
"""Times the cost of the shortest prompts, which a round takes in any case."""
WINDOW_S, WINDOW_SHARE = 1.5, 0.06
"""Streams are watched for so long or for so much of a round, within the steps above."""
_MOST_LENGTHS, _FEWEST_LENGTHS = 9, 5
_COMPACT_SHARE = 0.3
"""Of a round: where the shortest prompts alone take more, there are fewer of them, and of
batches."""
_OVER = 1.25
"""Times its time, what a round may take before it is made compact."""
_SHORT_ROUND_S = 6.0
"""Below it there is time for three batches, not four."""
_KV_SHARE, _MOST_KV_SHARE = 0.8, 0.9
"""Of the KV cache, so much is aimed at and at most so much is filled: no preemption, no eviction.
"""
_DEEP_SHARES = (0.3, 0.22, 0.16, 0.12, 0.08)
"""Of a round, at most so much goes to filling the contexts of one experiment; the first that
fits."""


@dataclass(frozen=True, slots=True)
class PromptExperiment:
    """A new prompt, then the same with so many tokens more, each time."""

    tokens: int
    extensions: tuple[int, ...] = ()

    @property
    def tokens_in_all(self) -> int:
        """Of the longest prompt."""
        return self.tokens + sum(self.extensions)


@dataclass(frozen=True, slots=True)
class StreamsExperiment:
    """Streams side by side, each with a context of its own."""

    batch: int
    context_tokens: int
    steps: int

    @property
    def tokens_in_all(self) -> int:
        """Of each stream at its end, those of the answer that are watched included."""
        return self.context_tokens + self.steps


@dataclass(frozen=True, slots=True)
class QueueExperiment:
    """So many new prompts, so many at once, beside a stream that counts the steps meanwhile."""

    prompts: int
    tokens: int
    at_once: int

    @property
    def tokens_in_all(self) -> int:
        """Of each of them."""
        return self.tokens

    def steps(self, step_tokens: int | None) -> int:
        """How many it may take: each prompt alone, a token of each, and until the next is there."""
        apart = prefill_steps(self.tokens, step_tokens)
        return self.prompts * apart + _TURN_STEPS * -(-self.prompts // self.at_once)

    @staticmethod
    def lasts(steps: int) -> int:
        """Tokens of the stream beside it: it must go on until all prompts are over."""
        return int(_QUEUE_MARGIN * steps) + _QUEUE_SPARE_STEPS

    def work(self, steps: float) -> Work:
        """All that is done in so many steps, as far as it is known before."""
        prompts, tokens = self.prompts, self.tokens
        watched = steps * (SHORTEST_TOKENS + steps / 2)
        return (
            steps,
            float(prompts * tokens + SHORTEST_TOKENS),
            prompts * attended_pairs(tokens, 0),
            steps + prompts,
            watched + prompts * tokens,
        )


Experiment = PromptExperiment | StreamsExperiment | QueueExperiment


@dataclass(frozen=True, slots=True)
class Limits:
    """What can be asked of the engine. `kv_tokens` None: it does not say."""

    prompt_tokens: int
    batch: int
    kv_tokens: int | None = None
    queues: bool = False
    """Whether prompts may be read in the steps in which a stream decodes."""

    def context_tokens(self, batch: int, steps: int = MOST_STEPS) -> int:
        """The longest context of each of so many streams that are watched for so long."""
        # Behind the longest prompt there is room for an answer of the usual length.
        longest = self.prompt_tokens - max(steps - MOST_STEPS, 0)
        if self.kv_tokens is not None:
            longest = min(longest, int(_KV_SHARE * self.kv_tokens / batch) - steps)
        return max(SHORTEST_TOKENS, longest)

    def holds(self, batch: int, context_tokens: int, steps: int) -> bool:
        """Whether so many streams can run so long with none of them preempted."""
        kv_tokens = inf if self.kv_tokens is None else self.kv_tokens
        return batch * (context_tokens + steps) <= _MOST_KV_SHARE * kv_tokens

    def holds_queue(self, queue: QueueExperiment, step_tokens: int | None) -> bool:
        """Whether the stream beside it can last, and none of the prompts is preempted."""
        beside = SHORTEST_TOKENS + queue.lasts(queue.steps(step_tokens))
        kv_tokens = inf if self.kv_tokens is None else self.kv_tokens
        prompts = queue.at_once * (queue.tokens + SHORTEST_TOKENS)
        return beside <= self.prompt_tokens and prompts + beside <= _MOST_KV_SHARE * kv_tokens


def design(limits: Limits, pace: LatencyProfile, round_s: float) -> tuple[Experiment, ...]:
    """One round, as long prompts as fit in `round_s` by what is known of the engine's pace.

    Half of it is for streams; what these leave is for prompts. A round that does not fit has fewer
    lengths and batches: what its repetitions do not show, a closer look afterwards does.
    """
    shortest = _prompts(4 * SHORTEST_TOKENS, compact=False)
    if cost_s(shortest, pace) <= _COMPACT_SHARE * round_s:
        usual = _design(limits, pace, round_s, compact=False)
        if cost_s(usual, pace) <= _OVER * round_s:
            return usual
    return _design(limits, pace, round_s, compact=True)


def _design(
    limits: Limits, pace: LatencyProfile, round_s: float, *, compact: bool
) -> tuple[Experiment, ...]:
    streams = _streams(limits, pace, round_s, compact=compact)
    left_s = round_s - min(cost_s(streams, pace), 0.5 * round_s)

    def prompts(longest: int) -> list[Experiment]:
        prompts = _prompts(longest, compact=compact)
        return [each for each in prompts for _ in range(repeats(each, pace, round_s))]

    shortest = 4 * SHORTEST_TOKENS
    # Where steps cost so much that even the shortest do not fit, shorter ones save nothing.
    left_s = max(left_s, HARDLY_MORE * cost_s(prompts(shortest), pace))
    longest = limits.prompt_tokens
    while longest > shortest and cost_s(prompts(longest), pace) > left_s:
        longest = max(longest * 7 // 8, shortest)
    return (*prompts(longest), *streams)


def few(limits: Limits, pace: LatencyProfile, round_s: float) -> tuple[Experiment, ...]:
    """A round that looks at each term once, for a check."""
    longest = limits.prompt_tokens
    while longest > 4 * SHORTEST_TOKENS and pace.prefill_s(longest) > round_s / 5:
        longest = longest * 3 // 4
    limits = replace(limits, prompt_tokens=longest)
    middle = max(SHORTEST_TOKENS, longest // 8)
    streams = _streams(limits, pace, round_s, compact=False)
    ends = [each for each in streams if each.batch in {1, limits.batch}]
    some = (ends[0], ends[1], *ends[-2:])
    return (
        PromptExperiment(middle),
        PromptExperiment(longest // 3),
        PromptExperiment(longest * 3 // 4, (longest // 5,)),
        *dict.fromkeys(some),
    )


def steps_watched(pace: LatencyProfile, batch: int, context_tokens: float, round_s: float) -> int:
    """Steps to look at: a line through twice as many points is three times as sure."""
    window_s = min(WINDOW_S, WINDOW_SHARE * round_s)
    step_s = max(pace.step_s(batch, context_tokens), 1e-4)
    return max(FEWEST_STEPS, min(MOST_STEPS, round(window_s / step_s)))


def repeats(experiment: Experiment, pace: LatencyProfile, round_s: float) -> int:
    """How often a round does this one: a tick weighs most on what is short, and that is cheap."""
    cheap_s = min(CHEAP_S, CHEAP_SHARE * round_s)
    return max(1, min(MOST_REPEATS, int(cheap_s / max(_cost_s(experiment, pace), 1e-3))))


def cost_s(experiments: Sequence[Experiment], pace: LatencyProfile) -> float:
    """Seconds that they take together."""
    return sum(_cost_s(each, pace) for each in experiments)


def _cost_s(experiment: Experiment, pace: LatencyProfile) -> float:
    if isinstance(experiment, PromptExperiment):
        seconds = pace.prefill_s(experiment.tokens)
        before = experiment.tokens
        for more in experiment.extensions:
            seconds += pace.prefill_s(more, before)
            before += more
        return seconds + ANSWER_TOKENS * pace.step_s(1, before) * (1 + len(experiment.extensions))
    if isinstance(experiment, QueueExperiment):
        return pace.seconds(experiment.work(experiment.steps(None)))
    batch, context = experiment.batch, experiment.context_tokens
    step_s = pace.step_s(batch, batch * context)
    return batch * pace.prefill_s(context) + 1.2 * experiment.steps * step_s


def _prompts(longest: int, *, compact: bool) -> list[PromptExperiment]:
    count = _FEWEST_LENGTHS if compact else _MOST_LENGTHS
    factor = max((longest / SHORTEST_TOKENS) ** (1 / (count - 1)), 1.0)
    lengths = dict.fromkeys(round(SHORTEST_TOKENS * factor**k) for k in range(count))
    prompts = [PromptExperiment(tokens) for tokens in lengths]
    extended = ((0.6, (0.35,)), (0.2, (0.1,)))
    if not compact:
        extended = ((0.75, (0.04, 0.2)), (0.4, (0.25,)), (0.15, (0.02,)))
    for share, more in extended:
        extensions = tuple(max(16, int(longest * each)) for each in more)
        prompts.append(PromptExperiment(int(longest * share), extensions))
    return prompts


def _streams(
    limits: Limits, pace: LatencyProfile, round_s: float, *, compact: bool
) -> list[StreamsExperiment]:
    """Contexts as deep as half of a round allows."""
    streams: list[StreamsExperiment] = []
    for share in _DEEP_SHARES:
        streams = _streams_of(limits, pace, round_s, share * round_s, compact=compact)
        if cost_s(streams, pace) <= 0.5 * round_s:
            break
    return streams


def _streams_of(
    limits: Limits, pace: LatencyProfile, round_s: float, deep_s: float, *, compact: bool
) -> list[StreamsExperiment]:
    streams: list[StreamsExperiment] = []
    few_batches = compact or round_s <= _SHORT_ROUND_S
    several = batches(limits.batch, 3 if few_batches else 4)
    for batch in several:
        deepest = limits.context_tokens(batch)
        while deepest > 4 * SHORTEST_TOKENS and batch * pace.prefill_s(deepest) > deep_s:
            deepest = deepest * 3 // 4
        shallow = min(SHORTEST_TOKENS, deepest)
        contexts = [shallow, deepest]
        if batch not in {1, limits.batch}:  # between the ends one look is enough, deep first
            contexts = [deepest] if streams[-1].batch == 1 else [shallow]
        elif len(several) < 3:  # few batches: more contexts, or nothing is left to be wrong by
            contexts = [shallow, (shallow + deepest) // 2, deepest]
        elif compact and batch == limits.batch:  # the step of most streams is the dearest
            contexts = [shallow]
        for context in dict.fromkeys(contexts):
            steps = steps_watched(pace, batch, batch * context, round_s)
            streams.append(StreamsExperiment(batch, context, steps))
    return streams


def batches(most: int, number: int) -> list[int]:
    """1 to `most`, geometric, so many of them where that goes."""
    return list(dict.fromkeys(round(most ** (k / (number - 1))) for k in range(number)))
