"""What a cost is made of, for who asks why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CostTerm:
    """One part of a candidate's cost.

    `unit` is "s" (seconds), "tokens", "requests", "turns", "places", "blocks" (of KV cache), their
    product "blocks²", "ratio" (of 1), or "score", where more is better and a cost is negative.
    """

    name: str
    value: float
    unit: str
