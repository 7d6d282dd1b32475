"""How long the output tokens of a replica take with what it was lately given to prefill, and how
many of its streams come too late by that.

    busy    = share of the last seconds (`recent_s`) that prefills sent there take
    TPOT    = step time / (1 - busy)                      while prefills come without a pause
    crowded = streams * (risk(TPOT) - risk(step time of the request alone))
    risk(t) = x^8 / (1 + x^8),  x = t / target            as in the policy `seconds`

What is missed where nobody else is, no company is to blame for.
"""

from __future__ import annotations

from math import exp
from typing import Final

from headrace.core.model import Replica

LATE_HARMLESS: Final = 0.7
"""How far a request whose first token is late counts as having nothing more to lose: it has no
place in goodput, but a reader. With 0 all wait in an overload for those that are late already,
until they are late as well; with 1 nobody is kept from a replica whose streams are all late, nor
from making the next ones slow."""
MOST_BUSY: Final = 0.9
_CERTAIN: Final = 1e17
ROOM: Final = 1.1
"""A replica is crowded where its TPOT, times this, is over the target: what it settles at is a
little above what is predicted when each is sent."""


def busy_share(replica: Replica, now: float) -> float:
    """Of a replica's time, what prefills lately took; at most `MOST_BUSY`."""
    latency, recent_s = replica.latency, replica.pool.recent_s
    profile = latency.pool.profile
    assert profile is not None
    kept = exp((replica.recent_marked_s - now) / recent_s)
    prefill_s = latency.prefill_factor * (
        profile.per_prefill_token_s * replica.recent_prefill_tokens
        + profile.per_attended_token_s * replica.recent_prefill_pairs
    )
    busy = kept * prefill_s / recent_s
    return busy if busy < MOST_BUSY else MOST_BUSY


def crowded(
    replica: Replica, *, tpot_s: float, target_s: float, context_tokens: float, now: float
) -> float:
    """Streams of a replica that would be too slow with a request of `context_tokens` among them,
    whose steps would take `tpot_s` without prefills. Those that are late count less.
    """
    profile = replica.latency.pool.profile
    assert profile is not None  # there is no predicted step time without one
    here_s = ROOM * tpot_s / (1.0 - busy_share(replica, now))
    if here_s <= target_s:
        return 0.0
    alone_s = replica.latency.decode_factor * (
        profile.per_step_s + profile.per_sequence_s + profile.per_kv_token_s * context_tokens
    )
    late = replica.late_prefilling + replica.late_decoding
    streams = replica.in_flight - LATE_HARMLESS * late
    return streams * (risk(here_s / target_s) - risk(alone_s / target_s))


def risk(share: float) -> float:
    """How likely a target is missed by who is predicted to take this share of it: at 80 % of the
    target 14 % are taken to miss it, at 120 % 81 %.
    """
    square = share * share
    fourth = square * square
    eighth = fourth * fourth
    # Above `_CERTAIN` the ratio is 1 to the last digit, until infinity makes it no number.
    return eighth / (1.0 + eighth) if eighth < _CERTAIN else 1.0
