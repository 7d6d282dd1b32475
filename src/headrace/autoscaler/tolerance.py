"""What an HPA must be told so that it does what is wanted, in spite of its tolerance.

An HPA with a target of 1 per replica compares value ÷ current with 1 and leaves everything as it is
while that is within the tolerance; else it takes ceil(value). So

    up    the smallest value above current · (1 + tolerance), if what is wanted is not above it
    down  what is wanted if it is below current · (1 - tolerance), else current: less than wanted is
          never published
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

_STEP = 0.001
"""Kubernetes counts metrics in thousandths."""


@dataclass(frozen=True, slots=True)
class HpaValue:
    """The value to publish; `note` says why it is not what is wanted, "" if it is."""

    value: float
    note: str = ""


def rising_value(wanted: int, seen: int, before: int, tolerance: float) -> HpaValue:
    """The value for an HPA whose replicas nobody sees before they are ready: it may still have
    those that are `seen`, or as many already as were wanted `before`. Either goes up by it.
    """
    values = [hpa_value(wanted, seen, tolerance)]
    if seen < before < wanted:
        values.append(hpa_value(wanted, before, tolerance))
    return max(values, key=lambda each: each.value)


def hpa_value(wanted: int, current: int, tolerance: float) -> HpaValue:
    """The value for an HPA that has `current` replicas and should have `wanted`.

    From and to zero replicas no tolerance holds: KEDA does these steps itself.
    """
    if current <= 0 or wanted <= 0 or wanted == current:
        return HpaValue(float(wanted))
    if wanted > current:
        most = current * (1.0 + tolerance)
        if wanted > most:
            return HpaValue(float(wanted))
        value = floor(round(most / _STEP, 6)) * _STEP + _STEP
        return HpaValue(
            round(value, 3),
            f"{value:.3f} is published, not {wanted}: the HPA would take {wanted} instead of "
            f"{current} for no change (tolerance {tolerance:g})",
        )
    least = current * (1.0 - tolerance)
    if wanted < least:
        return HpaValue(float(wanted))
    return HpaValue(
        float(current),
        f"{current} is published until fewer than {least:g} are wanted: the HPA would take "
        f"{wanted} for no change (tolerance {tolerance:g})",
    )
