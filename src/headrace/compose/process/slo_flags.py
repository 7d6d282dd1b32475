"""What `--slo` of several commands has in common: targets of one tier, or of all requests."""

from __future__ import annotations

from collections.abc import Sequence

USUAL_SLO = "ttft=2s,tpot=50ms"
"""Where nothing is said."""


def targets_by_tier(texts: Sequence[str]) -> dict[str, str]:
    """Each text is `TARGETS` of all requests, kept under "", or `TIER:TARGETS`.

    Raises:
        ValueError: there is no tier before a colon, or the targets of one are given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        tier, colon, targets = text.rpartition(":")
        tier = tier.strip()
        if colon and not tier:
            raise ValueError(f"--slo {text}: there is no tier before the colon")
        if tier in found:
            which = f"tier {tier}" if tier else "all requests"
            raise ValueError(f"--slo {text}: the targets of {which} are given twice")
        found[tier] = targets
    return found
