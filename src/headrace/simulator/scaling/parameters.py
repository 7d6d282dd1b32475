"""The range of each parameter that a scaler may be given, whichever scaler it is of.

A parameter means the same kind of thing wherever it stands, so the ranges are by its name. They are
wide: what is refused divides by zero or makes no sense, what is merely foolish is played.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """From `least` to `most`, both included unless it is `open`."""

    least: float
    most: float
    open: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value lies in it; nan never does."""
        if self.open:
            return self.least < value < self.most
        return self.least <= value <= self.most

    def __str__(self) -> str:
        words = ("one above {} and below {}" if self.open else "{} to {}").format
        return words(f"{self.least:,g}", f"{self.most:,g}")


RANGES = {
    "attainment": Range(0.0, 1.0, open=True),  # as in the configuration: some must be let miss
    "down": Range(0.0, 1_000.0),  # at 0 it never goes down
    "down_window_s": Range(0.0, 3_600.0),  # all that Kubernetes takes
    "kv": Range(0.001, 1.0),
    "margin": Range(0.001, 1_000.0),
    "queue": Range(0.001, 100_000.0),
    "share": Range(0.001, 10.0),
    "sla": Range(0.001, 1_000.0),
    "strict": Range(0.0, 1.0),
    "target": Range(0.001, 10.0),
    "tokens": Range(0.001, 100_000.0),
    "up": Range(0.001, 1_000.0),
}
