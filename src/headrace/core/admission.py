"""What is promised to whom, and the bounded queue of requests that wait at the gateway for a
replica with room.

A request is held where no replica has room for it, so that the choice is made when one has: in the
order of priority bands, and within a band by what is left of the time promised.
"""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_TIER = "default"


@dataclass(frozen=True, slots=True)
class Tier:
    """What a class of requests is promised, and what happens when that cannot be kept."""

    name: str = DEFAULT_TIER
    """What a request names in `x-headrace-tier`."""
    ttft_s: float = field(default=2.0, metadata={"above": 0})
    """Time to first token promised."""
    tpot_s: float = field(default=0.05, metadata={"above": 0})
    """Time per output token promised."""
    priority: int = field(default=0, metadata={"minimum": -100, "maximum": 100})
    """Of held requests, those of a higher priority go first."""
    shed_after_factor: float = 30.0
    """A request is answered 429 at once when its predicted TTFT is more than so many times
    `ttft_s`. 0 sheds none."""
    ttl_s: float = field(default=60.0, metadata={"above": 0})
    """A request that was held for so long is answered 503."""


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How requests wait at the gateway."""

    max_held: int = 4096
    """Requests that may wait; above it 429."""
    starved_after_s: float = 10.0
    """A request that has waited for so long goes before all that have not, whatever its priority:
    no band starves another."""
