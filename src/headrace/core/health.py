"""Taking failing replicas out and probing them back.

    READY ──failures in a row──► EJECTED ──back-off──► Probe ──healthy──► READY
                                    └────── longer back-off ◄──not──┘

Failures of the connection count (no answer, a reset, a timeout, a broken stream): an engine that
answers 503 is busy, not gone. And only those of a request's first attempt: one that kills a
connection may kill the next one as well, and must not take out every replica it is tried on.
A replica is *suspect* from when a request is held because it failed it (`suspect`): it is asked how
it is, and again with the back-off while no answer comes. It ends with whatever is heard of it: a
good probe, an engine's own answer, be it a refusal, or a first token.

Any other answer in place of the one asked for (500, a 401 to our key, a redirection) counts once
another replica has served the same request: only then was it not the request's fault. A 404 for an
adapter does not: its own model the replica serves.

Of replicas of one pool, all set up alike, that is proof. Where the fall-back of an alias served
it, the request may still be of a kind that this pool alone refuses, and one client could take out
every replica of the pool with such requests. It is a blame then, and counts if a second caller
blames the replica as well, if the gateway's own question was refused there, or if for
`LONE_BLAME_S` nobody got an answer from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.core.events import Ended
from headrace.core.model import Outcome, Replica, ReplicaState

if TYPE_CHECKING:
    from headrace.core.attempts import Attempt

_COMPLETED: Final = Outcome.COMPLETED
_READY: Final = ReplicaState.READY
LONE_BLAME_S: Final = 5.0
"""For so long one caller's blames count for nothing. Where that caller is the only one, this is how
long a broken pool has its requests tried in vain."""


@dataclass(frozen=True, slots=True)
class EjectionSettings:
    """When a failing replica is taken out, and for how long.

    One that served before and is back soon waits for its probe no longer than it was away, and
    `backoff` more; one that was away for `health.failures` checks and answers one again is used at
    once. Only one that is taken out time and again, and serves no request in between, waits up to
    `max_backoff`, even if it was restarted meanwhile: an answered check does not tell them apart.
    """

    failures: int = 2
    """Connection-level failures in a row."""
    backoff_s: float = 1.0
    """Before the first probe; doubles with each failed one."""
    max_backoff_s: float = 60.0
    """The longest such delay."""


def note_end(
    replica: Replica,
    ended: Ended,
    settings: EjectionSettings,
    now: float,
    *,
    first: bool,
    generates: bool = True,
) -> bool:
    """Count a failure or a success; whether the replica's state changed.

    `first` tells whether it was the request's first attempt: failures of others do not count.
    `generates` tells whether it asked for what pools are there for: vLLM answers `/tokenize`
    without a key, which says nothing for a replica that refuses ours.
    A success on an ejected replica (it was tried because nothing else was left) brings it back.
    """
    if replica.doubted and _answered(ended):
        if not generates:
            return False
        replica.vouched = replica.vouched or ended.outcome is _COMPLETED
    if ended.outcome is _COMPLETED and replica.state is _READY:
        replica.consecutive_failures = replica.ejections = 0
        replica.blamed_by = ""
        if replica.suspect:
            note_heard(replica)
        return False
    if _answered(ended):
        replica.consecutive_failures = 0
        replica.blamed_by = ""
        note_heard(replica)
        if ended.outcome is Outcome.COMPLETED:
            return note_probe(replica, True, settings, now)
        return False
    return first and _failed(ended) and note_failure(replica, settings, now)


def note_failure(replica: Replica, settings: EjectionSettings, now: float) -> bool:
    """Count a failure that was the replica's; whether its state changed."""
    replica.consecutive_failures += 1
    if replica.state is not ReplicaState.READY or replica.consecutive_failures < settings.failures:
        return False
    _eject(replica, settings, now)
    return True


def note_blame(
    replica: Replica,
    caller: str,
    in_flight: Iterable[Attempt],
    settings: EjectionSettings,
    now: float,
) -> bool:
    """Count that only another pool could serve this caller's request, unless that may be the
    caller's own doing; whether the replica's state changed. `in_flight` is all that is.
    """
    if caller and not replica.doubted:
        if not replica.blamed_by:
            replica.blamed_by, replica.blamed_since_s = caller, now
        if replica.blamed_by == caller and (
            now - replica.blamed_since_s < LONE_BLAME_S or _answers(replica, caller, in_flight)
        ):
            return False
    return note_failure(replica, settings, now)


def _answers(replica: Replica, caller: str, in_flight: Iterable[Attempt]) -> bool:
    """Whether somebody gets an answer from it at this moment. Where that is only presumed, because
    the answer is not streamed, the caller's own say nothing: they may be the next to fail.
    """
    return replica.decoding > 0 and any(
        attempt.is_timed
        or (attempt.first_token_s is not None and attempt.flight.request.caller != caller)
        for attempt in in_flight
        if attempt.replica is replica
    )


def suspect(replica: Replica, settings: EjectionSettings, now: float) -> bool:
    """Doubt that a ready replica which gave no answer is still there; whether to probe it now."""
    if replica.suspect:
        return False  # it is being asked
    replica.suspect = True
    replica.probe_at_s = now + backoff_s(replica, settings)
    return True


def note_heard(replica: Replica) -> None:
    """It has spoken: it is there. Whether an ejected one may come back is another question."""
    if replica.suspect:
        replica.suspect = False
        if replica.state is not ReplicaState.EJECTED:
            replica.probe_at_s = None


def note_probe(replica: Replica, healthy: bool, settings: EjectionSettings, now: float) -> bool:
    """Take a probe's answer; whether the replica's state or its next probe changed."""
    if healthy:
        replica.consecutive_failures = 0
        replica.blamed_by = ""
        note_heard(replica)
    if replica.state is not ReplicaState.EJECTED:
        if healthy:
            replica.ejections = 0
        elif replica.suspect and replica.state is _READY:
            _eject(replica, settings, now)
            return True
        return False
    if healthy:
        replica.state = ReplicaState.READY
        replica.probe_at_s = None
    else:
        _eject(replica, settings, now)
    return True


def _eject(replica: Replica, settings: EjectionSettings, now: float) -> None:
    replica.state = ReplicaState.EJECTED
    replica.ejections += 1
    replica.probe_at_s = now + backoff_s(replica, settings)


def backoff_s(replica: Replica, settings: EjectionSettings) -> float:
    """Seconds between this ejection and its probe."""
    doublings = min(max(0, replica.ejections - 1), 30)
    return min(settings.backoff_s * 2.0**doublings, settings.max_backoff_s)


def _answered(ended: Ended) -> bool:
    """Whether the engine spoke for itself, be it to refuse."""
    return ended.outcome in (Outcome.COMPLETED, Outcome.REFUSED)


def _failed(ended: Ended) -> bool:
    if ended.outcome is Outcome.UNAVAILABLE:
        return ended.status is None
    return ended.outcome in (Outcome.TIMED_OUT, Outcome.BROKEN)
