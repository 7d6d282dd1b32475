"""A profile against the engine of today: what it predicts, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from headrace.engine_model.calibration_table import DecodePoint, PrefillPoint, PromptPoint
from headrace.engine_model.measured import MeasuredProfile


@dataclass(frozen=True, slots=True)
class Compared:
    """One experiment: seconds to the first token, or of a step."""

    title: str
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """How far the prediction is off, as a share of what was measured; below 0: too short."""
        return self.predicted_s / self.measured_s - 1

    @property
    def change(self) -> float:
        """How much more than predicted it takes, as a share of that; below 0: less."""
        return self.measured_s / self.predicted_s - 1

    @property
    def size(self) -> float:
        """How far the two are apart, the larger as a share of the smaller: an engine that became a
        fifth slower and one that became a fifth faster are as far off as each other.
        """
        return max(self.error, self.change)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All experiments of a check. The phases are judged apart: each has terms of its own."""

    prefills: tuple[Compared, ...]
    decodes: tuple[Compared, ...]
    tolerance: float

    @property
    def prefill_error(self) -> float:
        """The median of the sizes."""
        return median(row.size for row in self.prefills)

    @property
    def decode_error(self) -> float:
        """The median of the sizes."""
        return median(row.size for row in self.decodes)

    @property
    def prefill_change(self) -> float:
        """The median of the changes."""
        return median(row.change for row in self.prefills)

    @property
    def decode_change(self) -> float:
        """The median of the changes."""
        return median(row.change for row in self.decodes)

    @property
    def holds(self) -> bool:
        """Whether the profile still describes the engine."""
        return max(self.prefill_error, self.decode_error) <= self.tolerance


def compare(
    profile: MeasuredProfile,
    prefills: Sequence[PromptPoint],
    decodes: Sequence[DecodePoint],
    tolerance: float,
) -> Comparison:
    """Predict what was measured. Raises ValueError if one of the phases was not."""
    if not prefills or not decodes:
        raise ValueError("nothing to compare: the experiments failed")
    step_s = profile.latency.step_s
    return Comparison(
        tuple(
            Compared(p.title, profile.ttft_s(p.uncached_tokens, p.cached_tokens), p.ttft_s)
            for p in prefills
            if isinstance(p, PrefillPoint)  # queues are no part of a check
        ),
        tuple(Compared(d.title, step_s(d.batch, d.context_tokens), d.step_s) for d in decodes),
        tolerance,
    )
