"""What a comparison is judged by.

    attainment        requests that met both targets / all that arrived
    token_attainment  prompt and answer tokens of these / of all
    replica_hours     ordered to gone, within the trace
    peak              most replicas paid at once
    changes           how often the number was changed

Requests without an end an hour after the last arrival are misses.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

DECIMALS = 6


@dataclass(frozen=True, slots=True)
class ScalingScores:
    """One line of the comparison."""

    scaler: str
    attainment: float
    token_attainment: float
    replica_hours: float
    peak: int
    changes: int

    def document(self) -> dict[str, object]:
        """As JSON wants it."""
        return {
            "scaler": self.scaler,
            "attainment": round(self.attainment, DECIMALS),
            "token_attainment": round(self.token_attainment, DECIMALS),
            "replica_hours": round(self.replica_hours, DECIMALS),
            "peak": self.peak,
            "changes": self.changes,
        }

    def beats(self, other: ScalingScores) -> bool:
        """Whether it is better in both: attainment and replica-hours."""
        return self.attainment > other.attainment and self.replica_hours < other.replica_hours


@dataclass(frozen=True, slots=True)
class Timeline:
    """A point per sync, for plots: columns of the same length.

    `demand` is in replicas at their TPOT target; `forecast` what the scaler expects, nan where it
    says nothing; `missed` requests whose end came since the last point.
    """

    at_s: array[float] = field(default_factory=lambda: array("d"))
    demand: array[float] = field(default_factory=lambda: array("d"))
    forecast: array[float] = field(default_factory=lambda: array("d"))
    ready: array[float] = field(default_factory=lambda: array("d"))
    ordered: array[float] = field(default_factory=lambda: array("d"))
    missed: array[float] = field(default_factory=lambda: array("d"))


@dataclass(frozen=True, slots=True)
class ScalingRun:
    """One scaler's scores and what happened. `wall_s` is how long it took."""

    scores: ScalingScores
    timeline: Timeline
    wall_s: float
