"""What the request path may be tuned in, all in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.health import EjectionSettings
from headrace.core.retries import RetrySettings


@dataclass(frozen=True, slots=True)
class DispatcherSettings:
    """What the request path may be tuned in."""

    retry: RetrySettings = field(default_factory=RetrySettings)
    """When a failed attempt is tried again on another replica."""
    ejection: EjectionSettings = field(default_factory=EjectionSettings)
    """When a failing replica is taken out, and for how long."""
    attempt_expiry_s: float = 7200.0
    """An attempt of which no end was heard for this long is forgotten."""
    busy_s: float = 1.0
    """How long a replica is believed to be full after it answered 503 or 429. A client for whom all
    are full is told to wait as long, or as the engine says, at most a minute."""
    retry_after_s: float = 2.0
    """What a client is told to wait when no replica is ready."""
    decisions: int = 10_000
    """Requests kept in the decision log."""
    learn_from_streams: int = 50
    """Streams from which a pool without a profile learns one."""
    tiers: tuple[Tier, ...] = (Tier(),)
    """What may be promised. A request that names none of them gets `default`."""
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    """How requests wait for a replica with room."""
