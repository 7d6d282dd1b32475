"""One request on its way through the gateway, from its arrival to the answer.

    begin ─► Arrived ─► dispatch ─► Attempt ─► the end of the answer
                           ▲           └── it failed, and the client has seen no byte
                           └── another replica

Until its first dispatch a request is held; that may come with any event, also another exchange's.
Where its replica is gone and there is no other, it may be held again.
The exchange does what the core decides, and tells the attempt what the client does. Everything
runs on the event loop's thread and nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Container
from enum import Enum
from typing import TYPE_CHECKING, Final

from headrace.core.events import Dispatch, Ended, Left, Reject
from headrace.core.model import Outcome, Replica
from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.errors import error_body
from headrace.gateway.attempt import Attempt
from headrace.gateway.call import Call
from headrace.gateway.engine_request import identity_of
from headrace.gateway.metrics.held import HeldResult
from headrace.gateway.notes import OURS

if TYPE_CHECKING:
    from headrace.gateway.server import DataPlane


class Phase(Enum):
    """Where an exchange stands."""

    HELD = 0
    SENT = 1
    OVER = 2


_HELD: Final = Phase.HELD
_SENT: Final = Phase.SENT
_OVER: Final = Phase.OVER


class Exchange:
    """One request. Serves as the client connection's `Exchange`."""

    __slots__ = (
        "_attempt",
        "_held_since_s",
        "_host",
        "_phase",
        "_trace",
        "call",
        "connection",
        "id",
        "settings",
    )

    def __init__(self, host: DataPlane, connection: ClientConnection, call: Call) -> None:
        self._host = host
        self.settings = host.settings  # a reload must not shorten what is under way
        self.connection = connection
        self.call = call
        self.id = call.request.id
        self._phase = _HELD
        self._held_since_s: float | None = None
        self._attempt: Attempt | None = None
        """The last one, until the request is over: no cycle is left for the collector."""
        tracer = host.tracer
        self._trace = None if tracer is None else tracer.begin(call.http, call.request)

    # ------------------------------------------------------------ what the core decides

    @property
    def undecided(self) -> bool:
        """Whether no replica has it, and it has not ended."""
        return self._phase is _HELD

    def hold(self) -> None:
        """The core has not decided at once: the request waits."""
        self._phase = _HELD
        self._held_since_s = self._host.now()

    def _release(self, result: HeldResult, model: str) -> None:
        """The request waits no more, if it did."""
        since_s, self._held_since_s = self._held_since_s, None
        if since_s is not None:
            request, held_s = self.call.request, self._host.now() - since_s
            self._host.released(self)
            self._host.telemetry.was_held(model, request.tier, result, held_s)

    def _leave(self, result: HeldResult) -> None:
        """The core shall not dispatch any more what it holds."""
        if self._phase is _HELD:
            self._release(result, self._host.held_for(self.id) or self.call.request.model)
            self._host.apply(Left(self.id))

    def dispatch(self, effect: Dispatch, replica: Replica) -> None:
        """Send the request to this replica."""
        if self._held_since_s is not None:
            self._release(HeldResult.DISPATCHED, effect.model)
        host, call = self._host, self.call
        upstream = host.upstream(effect.pool)
        asks = call.request.streamed and (
            upstream.dialect.usage_rule(call.request.endpoint).inject_usage
        )
        body, injected = call.body_for(effect.model, ask_usage=asks)
        self._phase = _SENT
        self._attempt = attempt = Attempt(host, self, effect, upstream)
        attempt.send(effect, replica.url, body, injected=injected, trace=self._trace)

    def has_gone_on(self, attempt: Attempt) -> bool:
        """Whether another attempt has followed this one already."""
        return self._attempt is not attempt and self._attempt is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._phase is _OVER

    def reject(self, effect: Reject) -> None:
        """Answer with an error of ours, or with the engine's own where that tells more."""
        if self._phase is _OVER:
            return
        attempt, request = self._attempt, self.call.request
        model = effect.model or ("" if attempt is None else attempt.model) or request.model
        self._release(HeldResult.REJECTED, model)
        self._host.telemetry.reject(effect.reason, model)
        if effect.passes_answer and attempt is not None and attempt.refused_with is not None:
            attempt.pass_error(attempt.refused_with)
            return
        body = error_body(
            effect.status,
            effect.message,
            path=self.call.http.path,
            code=effect.reason,
            param="model" if effect.status == 404 else None,
        )
        fields = OURS.fields + identity_of(request, "" if attempt is None else attempt.replica)
        if effect.retry_after_s is not None:
            fields += b"retry-after: %d\r\n" % max(1, round(effect.retry_after_s))
        self.over(effect.status, effect.reason if effect.status >= 500 else "")
        self.connection.start_rendered(effect.status, fields, length=len(body))
        self.connection.finish(body)

    # ------------------------------------------------------------ what the client does

    def client_gone(self) -> None:
        """Nobody waits any more: the engine must stop at once."""
        if self._phase is _OVER:
            return
        self._leave(HeldResult.LEFT)
        status, attempt = None, self._attempt
        if attempt is not None:
            attempt.leave()
            if attempt.answer_begun:
                status = attempt.status
        self.over(status)

    def client_slow(self) -> None:
        """Stop reading from the engine."""
        if self._attempt is not None:
            self._attempt.pause()

    def client_ready(self) -> None:
        """Read on."""
        if self._attempt is not None:
            self._attempt.resume()

    # ------------------------------------------------------------ deadlines

    def check(self, now: float) -> None:
        """End what takes longer than its limit; called a few times a second."""
        total_s, attempt = self.settings.timeouts.total_s, self._attempt
        if now - self.call.http.received_s > total_s:
            self.give_up(504, "upstream_timeout", f"not finished within {total_s:g} s")
        elif attempt is not None and attempt.under_way:
            attempt.check(now)

    def replica_lost(self, lost: Container[str]) -> None:
        """Try another replica if this one is lost, as long as the client has seen no byte."""
        attempt = self._attempt
        if attempt is None or not attempt.under_way or attempt.answer_begun:
            return
        if attempt.replica in lost:
            attempt.expire("its health checks fail")

    def cut(self, reason: str) -> None:
        """End at once: the gateway stops."""
        self.give_up(503, "gateway_stops", reason, retry_after_s=1.0)  # another one is there

    def fail(self, attempt: int) -> None:
        """The attempt could not be begun, by a fault of ours."""
        detail = "the gateway failed to send the request"
        self._host.apply(Ended(attempt, Outcome.CUT, detail=detail))
        self.give_up(500, "internal", detail)

    def give_up(
        self, status: int, code: str, reason: str, *, retry_after_s: float | None = None
    ) -> None:
        """End the request for a reason that says nothing about its replica."""
        self._leave(HeldResult.REJECTED)
        attempt = self._attempt
        if attempt is not None:
            attempt.give_up(reason)
            if attempt.answer_begun:
                return
        message = f"The request was given up: {reason}."
        self.reject(Reject(self.id, status, code, message, retry_after_s))

    def over(self, status: int | None, error: str = "") -> None:
        """Nothing more comes; `status` and `error` as `RequestTrace.end` takes them."""
        self._phase = _OVER
        self._attempt = None
        if self._trace is not None:
            self._trace.end(status, error)
        self._host.over(self)
