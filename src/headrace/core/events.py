"""What can happen, and what we may do about it.

An event names the attempt it belongs to; events of a finished attempt are no-ops, so a race
with a cancellation is harmless. Effects are requests to the program that drives the core; a
timer is the effect `WakeAt`.

    Arrived ──► Dispatch(attempt 1) ──► FirstToken ──► Progress* ──► Ended
                     └─ Ended(UNAVAILABLE) ──► Dispatch(attempt 2) … or Reject
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.core.message import message
from headrace.core.model import EngineReport, Outcome, Request, Usage
from headrace.core.specs import Alias, PoolSpec

if TYPE_CHECKING:
    from headrace.core.settings import DispatcherSettings

# ---------------------------------------------------------------- events


@message
class Arrived:
    """A request was read whole."""

    request: Request


@message
class Left:
    """The client of a request went away before the request was dispatched."""

    request_id: str


@message
class FirstToken:
    """The first content of an attempt was relayed: its prefill is done."""

    attempt: int


@message
class Progress:
    """Output tokens relayed so far by an attempt; at most four a second per stream."""

    attempt: int
    output_tokens: int


@message
class Ended:
    """An attempt is over.

    `usage` is the engine's own count if it came; `output_tokens` what was relayed, estimated
    where no usage came. `status` is the engine's HTTP status, None if there was none; `detail`
    says what went wrong, for the client's error and the decision log. `retry_after_s` is what the
    engine asks to wait, where it does. `reached` is False where there was no connection to send it
    on: the engine cannot have failed by this request.
    """

    attempt: int
    outcome: Outcome
    usage: Usage | None = None
    output_tokens: int = 0
    status: int | None = None
    detail: str = ""
    retry_after_s: float | None = None
    reached: bool = True

    @property
    def counted_output_tokens(self) -> int:
        """The engine's own count where there is one, else what was relayed."""
        return self.output_tokens if self.usage is None else self.usage.output_tokens


@message
class Scraped:
    """A replica's metrics were read."""

    replica: str
    report: EngineReport


@message
class KvChanged:
    """An engine told of its prefix cache: these blocks are there now, those no longer.

    Blocks are as in `Request.blocks`. Without `PromptBlocks.kv_events` it is a no-op.
    """

    replica: str
    stored: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


@message
class ReplicaChanged:
    """A replica was discovered, became ready or not, changed its adapters, or drains.

    `doubted` tells that it refused the gateway's own question for its models, or named some and not
    the pool's: what clients meet there is no wonder then.
    """

    replica: str
    pool: str
    url: str
    ready: bool
    adapters: frozenset[str] = frozenset()
    max_context_tokens: int | None = None
    draining: bool = False
    doubted: bool = False


@message
class ReplicaGone:
    """A replica left the fleet. Its attempts in flight still end one by one."""

    replica: str


@message
class Probed:
    """The answer to a `Probe`."""

    replica: str
    healthy: bool


@message
class ConfigChanged:
    """The pools and aliases are now these. Replicas of unchanged pools stay.

    `settings`, where they are given, hold from now on too.
    """

    pools: tuple[PoolSpec, ...]
    aliases: tuple[Alias, ...]
    settings: DispatcherSettings | None = None


@message
class Wake:
    """A time asked for by `WakeAt` has come. Too many wakes do no harm."""


Event = (
    Arrived
    | Left
    | FirstToken
    | Progress
    | Ended
    | Scraped
    | KvChanged
    | ReplicaChanged
    | ReplicaGone
    | Probed
    | ConfigChanged
    | Wake
)

# ---------------------------------------------------------------- effects


@message
class Dispatch:
    """Send the request to this replica, with `model` as its model id.

    `prompt_tokens` is the length that its prompt is taken to have.
    """

    request_id: str
    attempt: int
    pool: str
    replica: str
    model: str
    prompt_tokens: int = 0


class RejectReason:
    """Why a request was not dispatched; the values are error codes and label values."""

    UNKNOWN_MODEL: Final = "model_not_found"
    NO_REPLICA: Final = "no_replica_available"
    RETRIES_EXHAUSTED: Final = "upstream_unavailable"
    TIMED_OUT: Final = "upstream_timeout"
    OVERLOADED: Final = "overloaded"
    """Every replica is too busy for it: its engine said so, its tier would not be kept by far, or
    too many are held already."""
    HELD_TOO_LONG: Final = "held_too_long"
    """It was held for as long as its tier lets it wait."""


@message
class Reject:
    """Answer the client with an error.

    `status` is the HTTP status; `retry_after_s` goes out as Retry-After when given.
    `passes_answer` is true when the last attempt was answered with an error of the engine's own
    (5xx other than 503): that answer, where it was kept, tells the client more than this one and
    is passed on instead. `model` is the one that it was sent to last, or would have been sent to:
    behind an alias that is not what was asked for. "" where no model is known.
    """

    request_id: str
    status: int
    reason: str
    message: str
    retry_after_s: float | None = None
    passes_answer: bool = False
    model: str = ""


@message
class Probe:
    """Ask a replica's health endpoint and report `Probed`."""

    replica: str


@message
class WakeAt:
    """Send `Wake` at this time (the clock of `now`)."""

    at_s: float


Effect = Dispatch | Reject | Probe | WakeAt
