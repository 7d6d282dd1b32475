"""What is promised to whom, and how requests wait at the gateway for a replica with room."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

DEFAULT_TIER: Final = "default"

LEAST_TARGET_S: Final = 1e-6
"""A shorter target is a slip of the pen, and predictions divided by it are no numbers."""


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
    """A request is answered 429 when its predicted TTFT is more than so many times `ttft_s` and
    waiting is to blame, not its own length: when it comes, or, in an overload that lasts, when it
    is counted as late. 0 sheds none."""
    ttl_s: float = field(default=120.0, metadata={"above": 0})
    """A request that was held for so long is answered 503."""


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How requests wait at the gateway."""

    max_held: int = 4096
    """Requests that may wait; above it 429, for one of a lower priority if there is one."""
    hold_above_s: float = 0.35
    """A request is held while it would wait for longer than this at the replica that is best for
    it. Less keeps the choice open for longer; but an engine must not run dry in between."""
    hold_above_missed: float = field(default=4.0, metadata={"minimum": 0})
    """A request is held while the replica that is best for it would miss so many targets of its
    streams because of it, at most 2.5 seconds for each beyond that, and half of its tier's
    `ttl`: where there is more to do than can be done in time, this keeps what is in time
    in time. 0 holds none for that."""
    starved_after_s: float = 30.0
    """A request that has waited for so long goes before all others, whatever its priority: where
    several have such, those of the one that got less so first, of each the oldest. No band starves
    another. After one of them others get four times as much prefill first, for at most this time,
    or in a lasting overload nobody would be in time."""
