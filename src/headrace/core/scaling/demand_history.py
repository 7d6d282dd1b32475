"""Demand of the past, in steps: what a scaler is told of the time before it ran."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DemandSample:
    """What arrived at a pool in `lasts_s` seconds from `begins_s` (Unix seconds) on, in totals.

    Steps need not follow each other without a gap.
    """

    begins_s: float
    lasts_s: float
    requests: float
    input_tokens: float
    output_tokens: float
