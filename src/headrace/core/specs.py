"""What an operator says of pools and of the names that clients use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace.core.latency import LatencyProfile


class Role(StrEnum):
    """What the replicas of a pool do. Only `BOTH` is routed to today."""

    PREFILL = "prefill"
    DECODE = "decode"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as configured."""

    name: str
    """Unique among pools; a label in metrics."""
    model: str
    """The id its engines serve."""
    role: Role = Role.BOTH
    """What its replicas do; only `both` is routed to today."""
    policy: str = "seconds"
    """How a replica is chosen: a policy's name, or `name:parameter=number,…`."""
    profile: LatencyProfile | None = None
    """Prior of the latency model; None learns it from the first streams."""
    media_tokens: int = 1024
    """What one media item (an image, a clip) costs in prompt tokens."""
    wait_for_replica_s: float = 0.0
    """While no replica is ready, a request is held for so long, or its tier's `ttl` if that is
    longer, instead of being answered 503 at once: for pools that scale to zero. So is one whose
    replica went away before its answer began. Give it a cold start's time and some more."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model behind an alias, with its share of the traffic."""

    model: str
    """A pool's model, or an adapter."""
    weight: float = 1.0
    """Its share is this over the sum of the alias's weights."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that clients use: a weighted choice of targets, then ordered fall-backs."""

    name: str
    """What clients write as `model`."""
    targets: tuple[Target, ...]
    """One of these is chosen for each request, at random by weight."""
    fallbacks: tuple[str, ...] = ()
    """Models tried in this order when no replica of the chosen target can take the request."""
