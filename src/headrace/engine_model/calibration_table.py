"""What was measured, as rows of the least squares that the latency model is fitted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headrace.core.latency import Work, attended_pairs
from headrace.core.profile_fit import TERMS
from headrace.engine_model.least_squares import student_975
from headrace.engine_model.measured import prefill_steps
from headrace.engine_model.noise import Noise

OVERHEAD = len(TERMS)
"""The column of what a request takes besides steps."""
TICK_S = 0.0005
"""A measured time is taken to be off by it until the data show by how much: event loops tick."""
COLUMNS_OF_A_PHASE = 3
_DECODE_TERMS = frozenset({0, 3, 4})


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """A prompt alone on the engine, as it is when nothing else disturbs it.

    `repeats` is how many prompts alike it was made of.
    """

    uncached_tokens: int
    cached_tokens: int
    ttft_s: float
    repeats: int = 1

    @property
    def title(self) -> str:
        """What was done, in words."""
        if self.cached_tokens:
            return f"prefill {self.uncached_tokens:,} behind {self.cached_tokens:,} cached"
        return f"prefill {self.uncached_tokens:,}"

    @property
    def tick_s(self) -> float:
        """By how much ticks of `TICK_S` make it uncertain."""
        return TICK_S / self.repeats**0.5


@dataclass(frozen=True, slots=True)
class QueuePoint:
    """Many prompts one after the other, beside a stream that decodes and so counts the steps.

    One tick is spread over all of them: what a single prompt cannot show, as the pairs that it
    attends to where the context is short, many do. `work` is all that the engine did in `ttft_s`,
    from the request to the last token; `uncached_tokens` are those of each prompt.
    """

    uncached_tokens: int
    prompts: int
    work: Work
    ttft_s: float
    repeats: int = 1

    @property
    def title(self) -> str:
        """What was done, in words."""
        return f"prefill {self.prompts:,} × {self.uncached_tokens:,} beside a stream"

    @property
    def cached_tokens(self) -> int:
        """Each prompt is new."""
        return 0

    @property
    def tick_s(self) -> float:
        """By how much ticks of `TICK_S` make it uncertain."""
        return TICK_S / self.repeats**0.5


PromptPoint: TypeAlias = PrefillPoint | QueuePoint


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """Streams side by side, as they are when nothing else disturbs them.

    `context_tokens` is the sum over the streams in the middle of the time measured, `steps` how
    many steps that were, `repeats` how often.
    """

    batch: int
    context_tokens: float
    step_s: float
    steps: int
    repeats: int = 1

    @property
    def title(self) -> str:
        """What was done, in words."""
        return f"decode {self.batch} × {self.context_tokens / self.batch:,.0f} of context"

    @property
    def tick_s(self) -> float:
        """The same; the slope of a line through so many ticks."""
        return step_tick_s(self.steps) / self.repeats**0.5


def step_tick_s(steps: int) -> float:
    """By how much ticks of `TICK_S` make the slope of a line through so many of them uncertain."""
    return TICK_S * 12**0.5 / steps**1.5


@dataclass(frozen=True, slots=True)
class Extent:
    """The most that one prompt or one step can bring at this engine."""

    context_tokens: int
    """Of one request."""
    sequences: int
    """In one step."""
    kv_tokens: int
    """Read by one step."""


class CalibrationTable:
    """Rows of the least squares; the column of the steps depends on the step's budget."""

    def __init__(
        self, prefills: Sequence[PromptPoint], decodes: Sequence[DecodePoint], extent: Extent
    ) -> None:
        self.prefills = [each for each in prefills if isinstance(each, PrefillPoint)]
        self.queues = [each for each in prefills if isinstance(each, QueuePoint)]
        self.decodes, self.extent = decodes, extent
        self.longest = max(point.uncached_tokens for point in self.prefills)
        prompts = (*self.prefills, *self.queues)
        points = (*prompts, *decodes)
        self.observed = [p.ttft_s for p in prompts] + [d.step_s for d in decodes]
        self.titles = [point.title for point in points]
        self.ticks_s = [point.tick_s for point in points]
        self.phases = (range(len(prompts)), range(len(prompts), len(points)))

    def rows(self, step_tokens: int | None) -> list[list[float]]:
        """All columns: the terms, then the overhead."""
        rows = [
            [
                float(prefill_steps(p.uncached_tokens, step_tokens)),
                float(p.uncached_tokens),
                attended_pairs(p.uncached_tokens, p.cached_tokens),
                *(0.0, 0.0, 1.0),
            ]
            for p in self.prefills
        ]
        # Their steps were counted.
        rows += [[*queue.work, 1.0] for queue in self.queues]
        rows += [[1.0, 0.0, 0.0, float(d.batch), d.context_tokens, 0.0] for d in self.decodes]
        return rows

    def sigma_s(self, noises: tuple[Noise, Noise]) -> list[float]:
        """How far each row may be off, with the noise of prefill and of decode."""
        return [
            noise.sigma_s(self.ticks_s[i], self.observed[i])
            for noise, phase in zip(noises, self.phases, strict=True)
            for i in phase
        ]

    def students(self, term: int) -> float:
        """Student's quantile for a term: so many rows of its phase are more than needed."""
        rows = self.phases[1 if term in _DECODE_TERMS else 0]
        return student_975(max(len(rows) - COLUMNS_OF_A_PHASE, 3))

    @property
    def terms(self) -> list[int]:
        """Columns worth a coefficient: with one sequence at a time, a step is its sequence."""
        return [i for i in range(OVERHEAD + 1) if i != 3 or self.extent.sequences > 1]
