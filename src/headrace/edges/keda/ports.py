"""What the edge needs of a scaler, and how a ScaledObject says which pool it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

from headrace.core.quantities import parse_number

UNKNOWN = "the demand is not known now"
WHERE_WHY = "why says `headrace why --scaling`"
OURS = ("pool", "tolerance")
"""What a trigger's metadata may say to us."""
LIKE_OURS = 0.8
"""Keys that are so much like one of these are mistakes in it: `tolerence` would say nothing."""
DEFAULT_TOLERANCE = 0.1
"""Kubernetes' own: an HPA leaves alone what is at most a tenth away from what it has."""


@dataclass(frozen=True, slots=True)
class Published:
    """What an autoscaler outside is told: with a target of 1 per replica, `value` is the number of
    replicas wanted, None where only that some are is known; `active` is false for a pool that may
    have none at all.
    """

    value: float | None
    active: bool


class PublishedPlans(Protocol):
    """A scaler's newest plans. Nothing here waits but for `next_change`."""

    def pools(self) -> Sequence[str]:
        """The names of the pools that are scaled."""
        ...

    def published(self, pool: str, tolerance: float) -> Published | None:
        """What is wanted of a pool now; None while nothing is known, or not known any more.

        `tolerance` is that of the HPA behind it: a change that it would swallow is published so
        that it is not.
        """
        ...

    def next_change(self) -> asyncio.Future[None]:
        """Done as soon as any plan is another one than now. Who waits for it may cancel it."""
        ...


class WrongReference(ValueError):
    """What a ScaledObject says cannot be used. The message names the field and the remedy."""


class NoSuchPool(WrongReference):
    """It names no pool of ours."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a trigger's metadata says: the pool, and the tolerance of the HPA behind it."""

    pool: str
    tolerance: float = DEFAULT_TOLERANCE


def says_unknown(pool: str) -> str:
    """What whoever asks for a pool is told while nothing is published of it."""
    return f"pool {pool!r}: {UNKNOWN}; {WHERE_WHY}"


def read_reference(metadata: Mapping[str, str], pools: Sequence[str]) -> Reference:
    """Read a trigger's metadata; what is not ours in it is KEDA's.

    `pool` may be left out where there is only one. `tolerance` is what the ScaledObject sets under
    `horizontalPodAutoscalerConfig.behavior`, Kubernetes' default without it.

    Raises:
        NoSuchPool: there is no such pool.
        WrongReference: there is no such tolerance, or a key is nearly one of ours.
    """
    for key in metadata:
        meant = get_close_matches(key.lower(), OURS, 1, LIKE_OURS)
        if meant and key not in OURS:
            raise WrongReference(f"metadata.{key[:100]} means nothing; is it {meant[0]!r}?")
    pool = metadata.get("pool", "")
    if not pool and len(pools) == 1:
        pool = pools[0]
    if pool not in pools:
        known = ", ".join(pools) or "none"
        said = f"is {pool[:100]!r}" if pool else "is missing"
        raise NoSuchPool(f"metadata.pool {said}; pools that are scaled here: {known}")
    return Reference(pool, _tolerance(metadata.get("tolerance")))


def _tolerance(text: str | None) -> float:
    if text is None:
        return DEFAULT_TOLERANCE
    try:
        tolerance = parse_number(text)
    except ValueError:
        tolerance = -1.0
    if not 0.0 <= tolerance < 1.0:
        raise WrongReference(
            f"metadata.tolerance is {text[:100]!r}; give the HPA's, a number from 0 to below 1"
        )
    return tolerance
