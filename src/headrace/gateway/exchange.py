"""One request on its way through the gateway: dispatched, relayed, ended.

    handle ─► Arrived ─► dispatch ─► answer_head ─► answer_body* ─► answer_complete
                  ▲          └──────────────┴─ answer_failed, an error, or a deadline
                  └── another replica, as long as the client has seen no byte

Until its first dispatch a request is held; that may come with any event, also another exchange's.
Where its replica is gone and there is no other, it may be held again.
The exchange tells the core what happened and does what the core decides. Everything runs on the
event loop's thread and nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Container
from enum import Enum
from typing import TYPE_CHECKING, Final

from headrace.core.events import Dispatch, Ended, FirstToken, Left, Reject, RejectReason
from headrace.core.model import Endpoint, Outcome, Replica, Usage
from headrace.edges.http.address import Address
from headrace.edges.http.client import RESEND_S, UpstreamCall
from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.errors import error_body
from headrace.edges.http.heads import Header
from headrace.edges.http.ports import AnswerHead
from headrace.gateway.believed_usage import believed
from headrace.gateway.breakage import error_event
from headrace.gateway.call import Call
from headrace.gateway.endpoints import AUDIO
from headrace.gateway.engine_request import identity_of, payload_of
from headrace.gateway.metrics.held import HeldResult
from headrace.gateway.metrics.meter import Meter
from headrace.gateway.notes import AnswerNotes
from headrace.gateway.readers import reader_of
from headrace.gateway.relay import BodyRelay, ErrorRelay, Relay, StreamRelay, UntypedRelay
from headrace.gateway.steady import Steady
from headrace.gateway.tracing import AttemptTrace
from headrace.gateway.upstream import Upstream

if TYPE_CHECKING:
    from headrace.gateway.server import DataPlane

JSON: Header = (b"content-type", b"application/json")
_OURS: Final = AnswerNotes(AnswerHead(0, [JSON]))
"""For answers that are not an engine's."""
_RETRYABLE: Final = frozenset((Outcome.UNAVAILABLE, Outcome.TIMED_OUT))
_ANSWERED: Final = frozenset((Outcome.COMPLETED, Outcome.BROKEN))  # the client gets what came


class Phase(Enum):
    """Where an exchange stands."""

    HELD = 0
    CONNECTING = 1
    WAITING = 2
    RELAYING = 3
    OVER = 4


_HELD: Final = Phase.HELD
_CONNECTING: Final = Phase.CONNECTING
_WAITING: Final = Phase.WAITING
_RELAYING: Final = Phase.RELAYING
_OVER: Final = Phase.OVER
_BROKEN: Final = Outcome.BROKEN
_COMPLETED: Final = Outcome.COMPLETED


class Exchange:
    """One request. Serves as the client connection's `Exchange` and as the engine's sink."""

    __slots__ = (
        "_answer",
        "_attempt",
        "_attempt_trace",
        "_call",
        "_connection",
        "_held_since_s",
        "_host",
        "_last_byte_s",
        "_meter",
        "_model",
        "_out",
        "_paused",
        "_phase",
        "_refused_with",
        "_relay",
        "_replica",
        "_sent",
        "_sent_s",
        "_settings",
        "_started_s",
        "_status",
        "_steady",
        "_tokens_started",
        "_trace",
        "_upstream",
        "_upstream_call",
        "id",
    )

    def __init__(self, host: DataPlane, connection: ClientConnection, call: Call) -> None:
        self._host = host
        self._settings = host.settings  # a reload must not shorten what is under way
        self._connection = connection
        self._call = call
        self.id = call.request.id
        self._started_s = self._sent_s = self._last_byte_s = call.http.received_s
        self._phase = _HELD
        self._held_since_s: float | None = None
        self._attempt = 0
        self._replica = ""
        self._model = ""
        self._upstream: Upstream | None = None
        self._upstream_call: UpstreamCall | None = None
        self._meter: Meter | None = None
        self._relay: Relay | None = None
        self._status = 0
        self._refused_with: bytes | None = None
        self._answer = _OURS
        self._out: list[bytes] = []
        self._sent = False
        self._tokens_started = False
        self._steady: Steady | None = None
        self._paused = False
        tracer = host.tracer
        self._trace = None if tracer is None else tracer.begin(call.http, call.request)
        self._attempt_trace: AttemptTrace | None = None

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
            request, held_s = self._call.request, self._host.now() - since_s
            self._host.released(self)
            self._host.telemetry.was_held(model, request.tier, result, held_s)

    def _leave(self, result: HeldResult) -> None:
        """The core shall not dispatch any more what it holds."""
        if self._phase is _HELD:
            self._release(result, self._host.held_for(self.id) or self._call.request.model)
            self._host.apply(Left(self.id))

    def dispatch(self, effect: Dispatch, replica: Replica) -> None:
        """Send the request to this replica."""
        if self._held_since_s is not None:
            self._release(HeldResult.DISPATCHED, effect.model)
        host, call = self._host, self._call
        request, now, upstream = call.request, host.now(), host.upstream(effect.pool)
        streamed, endpoint = request.streamed, request.endpoint
        ask_usage = streamed and upstream.dialect.usage_rule(endpoint).inject_usage
        body, injected = call.body_for(effect.model, ask_usage=ask_usage)
        if self._attempt:
            self._begin_anew()
        self._upstream = upstream
        self._attempt = effect.attempt
        self._replica = effect.replica
        self._model = effect.model
        self._meter = meter = host.telemetry.begin(
            effect.model,
            effect.pool,
            effect.replica,
            effect.attempt,
            self._started_s,
            streamed,
            endpoint,
            effect.prompt_tokens,
            call.request.sequences,
        )
        if streamed:
            reader = upstream.dialect.stream_reader(
                endpoint, injected=injected, prompts=call.prompts
            )
            self._relay = StreamRelay(reader, meter, self._settings.limits.max_event_bytes)
        self._sent_s = now
        self._phase = _CONNECTING
        address = upstream.address(replica.url)
        if self._trace is not None:
            engine = upstream.dialect.name
            self._attempt_trace = self._trace.attempt(effect, engine, address, now)
        self._upstream_call = host.pool.open(address, self._payload(body, address), self)

    def _begin_anew(self) -> None:
        """Another attempt follows: nothing of the one before is left."""
        self._tokens_started = False
        self._status = 0
        self._refused_with = self._relay = None
        self._out.clear()

    def reject(self, effect: Reject) -> None:
        """Answer with an error of ours, or with the engine's own where that tells more."""
        if self._phase is _OVER:
            return
        model = effect.model or self._model or self._call.request.model
        self._release(HeldResult.REJECTED, model)
        self._host.telemetry.reject(effect.reason, model)
        if effect.passes_answer and self._refused_with is not None:
            self._pass_error(self._refused_with)
            return
        body = error_body(
            effect.status,
            effect.message,
            path=self._call.http.path,
            code=effect.reason,
            param="model" if effect.status == 404 else None,
        )
        fields = _OURS.fields + self._identity()
        if effect.retry_after_s is not None:
            fields += b"retry-after: %d\r\n" % max(1, round(effect.retry_after_s))
        self._over(effect.status, effect.reason if effect.status >= 500 else "")
        self._connection.start_rendered(effect.status, fields, length=len(body))
        self._connection.finish(body)

    # ------------------------------------------------------------ what the engine answers

    def answer_head(self, head: AnswerHead) -> None:
        """Choose how the body is relayed. Nothing reaches the client before its first byte."""
        upstream = self._upstream
        assert upstream is not None
        self._phase = _RELAYING
        self._last_byte_s = self._host.now()
        self._status = head.status
        notes: AnswerNotes | None = head.notes
        if notes is None:
            notes = head.notes = AnswerNotes(head)
        self._answer = notes
        if self._is_no_answer(head.status):
            self._relay = ErrorRelay()
        elif notes.streams:
            if self._upstream_call is not None and upstream.dialect.closes_after_stream:
                self._upstream_call.reusable = False
            if self._relay is None:  # a stream that the request's body did not ask for
                assert self._meter is not None
                self._host.telemetry.stream_begun(self._meter)
                reader = reader_of(self._call, upstream.dialect, self._host.responses)
                limit = self._settings.limits.max_event_bytes
                self._relay = StreamRelay(reader, self._meter, limit)
        else:
            stream, self._relay = self._relay, BodyRelay(self._read, self._read_bytes)
            if notes.untyped and isinstance(stream, StreamRelay):
                self._relay = UntypedRelay(stream, self._relay, self._go_on_with)

    def _go_on_with(self, relay: Relay) -> None:
        self._relay = relay

    def answer_body(self, data: bytes) -> None:
        """Read a piece; it leaves with `answer_flush`."""
        relay, meter = self._relay, self._meter
        if relay is None or meter is None:
            return
        steady, now = self._steady, self._host.now()
        self._last_byte_s = now
        out = relay.feed(data, now) if steady is None else steady.read(data, now)
        if out:
            self._out.append(out)

    def answer_chunk(self, chunk: bytes, start: int) -> None:
        """Read a piece that came alone; one with an ordinary event passes in the chunk it is in."""
        steady = self._steady
        if steady is not None and steady.passes(chunk, start):
            return
        self.answer_body(chunk[start:-2])
        self.answer_flush()

    def answer_flush(self) -> None:
        """Send what was read."""
        out, meter = self._out, self._meter
        if out:
            if not self._sent:
                self._start()
            self._connection.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
        if not self._tokens_started and meter is not None and meter.first_s is not None:
            # Not before it was sent: from here on the core knows that a retry is too late.
            self._tokens_started = True
            self._flow(meter)
            self._remember()
            self._host.apply(FirstToken(self._attempt), meter.first_s)

    def _flow(self, meter: Meter) -> None:
        """From its first token on, ordinary chunks of a stream may pass as they come."""
        relay, call, write = self._relay, self._upstream_call, self._connection.write_chunk
        if isinstance(relay, StreamRelay) and call is not None and write is not None:
            assert self._upstream is not None
            self._steady = Steady(relay, meter, write)
            call.let_pass(self._steady.takes, late_acks=self._upstream.dialect.sends_at_once)

    def answer_complete(self, framed: bool) -> None:
        """The answer is whole."""
        relay = self._relay
        self._upstream_call = None
        if relay is None or self._phase is _OVER:
            return
        self._out.append(relay.finish())
        if self._is_no_answer(self._status):
            self._engine_refused(b"".join(self._out))
            return
        self._remember()
        if isinstance(relay, StreamRelay) and not framed and not relay.done:
            self.answer_failed("the stream ended without its end mark")
            return
        fails = isinstance(relay, StreamRelay) and relay.error  # in the engine's own words
        outcome = _BROKEN if fails else _COMPLETED
        self._end(outcome, status=self._status)
        self._over(self._status, outcome.value if fails else "")
        last = b"".join(self._out)
        if not self._sent:
            self._start(length=len(last) if isinstance(relay, BodyRelay) else None)
        self._connection.finish(last)

    def answer_whole(self, head: AnswerHead, body: bytes) -> None:
        """A whole answer came at once."""
        notes: AnswerNotes | None = head.notes
        if notes is None:
            notes = head.notes = AnswerNotes(head)
        may_stream = notes.streams or (notes.untyped and self._call.request.streamed)
        if self._is_no_answer(head.status) or may_stream or len(body) > self._read_bytes:
            self.answer_head(head)
            self.answer_body(body)
            self.answer_complete(framed=True)
            return
        self._upstream_call = self._relay = None
        self._phase = _RELAYING
        self._answer, self._status = notes, head.status
        self._end(_COMPLETED, status=head.status, usage=self._read(body))
        self._over(head.status)
        self._connection.respond_rendered(head.status, notes.fields + self._identity(), body)

    def answer_failed(self, reason: str) -> None:
        """The connection could not be made, or broke."""
        call, self._upstream_call = self._upstream_call, None
        if self._sent:
            self._break_off(Outcome.BROKEN, reason)
        else:
            reached = call is None or call.sent
            self._end(Outcome.UNAVAILABLE, detail=reason, reached=reached)

    def answer_cut(self, reason: str) -> None:
        """A fault of ours, or a lack of this machine: the replica is not blamed for it."""
        self._upstream_call = None
        self._give_up(500, "internal", reason)

    # ------------------------------------------------------------ what the client does

    def client_gone(self) -> None:
        """Nobody waits any more: the engine must stop at once."""
        if self._phase is _OVER:
            return
        self._leave(HeldResult.LEFT)
        self._cancel_upstream()
        self._end(Outcome.ABORTED, detail="the client closed its connection")
        self._over(self._status if self._sent else None)

    def client_slow(self) -> None:
        """Stop reading from the engine."""
        self._paused = True
        if self._upstream_call is not None:
            self._upstream_call.pause()

    def client_ready(self) -> None:
        """Read on."""
        self._paused = False
        self._last_byte_s = self._host.now()
        if self._upstream_call is not None:
            self._upstream_call.resume()

    # ------------------------------------------------------------ deadlines

    def check(self, now: float) -> None:
        """End what takes longer than its limit; called a few times a second."""
        timeouts = self._settings.timeouts
        call = self._upstream_call
        if call is not None and (self._phase is _CONNECTING or self._phase is _WAITING):
            # A call may connect anew when a kept-alive connection was lost under it.
            self._phase = _WAITING if call.connected else _CONNECTING
            if not call.connected and now - self._sent_s > timeouts.connect_s + RESEND_S:
                self._expire(f"no connection within {timeouts.connect_s:g} s")
                return
        if now - self._started_s > timeouts.total_s:
            reason = f"not finished within {timeouts.total_s:g} s"
            self._give_up(504, "upstream_timeout", reason)
        elif self._phase is _WAITING and now - self._sent_s > timeouts.first_byte_s:
            reason = f"no answer within {timeouts.first_byte_s:g} s"
            if self._call.request.streamed:
                self._expire(reason)
            else:  # it may just be long; to begin it anew elsewhere would triple the work
                self._give_up(504, "upstream_timeout", reason)
        elif (
            self._phase is _RELAYING
            and not self._paused
            and now - self._heard_s > timeouts.between_bytes_s
        ):
            self._expire(f"the answer stalled for {timeouts.between_bytes_s:g} s")

    def replica_lost(self, lost: Container[str]) -> None:
        """Try another replica if this one is lost, as long as the client has seen no byte."""
        if self._replica in lost and self._has_attempt and not self._sent:
            self._expire("its health checks fail")

    @property
    def _heard_s(self) -> float:
        """When the engine said something last."""
        if self._steady is None or self._meter is None:
            return self._last_byte_s
        return max(self._last_byte_s, self._meter.latest_s)

    def cut(self, reason: str) -> None:
        """End at once: the gateway stops."""
        self._give_up(503, "gateway_stops", reason, retry_after_s=1.0)  # another one is there

    def fail(self, attempt: int) -> None:
        """The attempt could not be begun, by a fault of ours."""
        detail = "the gateway failed to send the request"
        self._host.apply(Ended(attempt, Outcome.CUT, detail=detail))
        self._give_up(500, "internal", detail)

    def _expire(self, reason: str) -> None:
        """The attempt took too long; as long as the client has seen nothing, another may follow."""
        call = self._upstream_call
        self._cancel_upstream()
        if self._sent:
            self._break_off(Outcome.BROKEN, reason)
        else:
            reached = call is None or call.sent
            self._end(Outcome.TIMED_OUT, detail=reason, reached=reached)

    def _give_up(
        self, status: int, code: str, reason: str, *, retry_after_s: float | None = None
    ) -> None:
        """End the request for a reason that says nothing about its replica."""
        self._leave(HeldResult.REJECTED)
        self._cancel_upstream()
        if self._sent:
            self._break_off(Outcome.CUT, reason)
        else:
            self._end(Outcome.CUT, detail=reason)
            message = f"The request was given up: {reason}."
            self.reject(Reject(self.id, status, code, message, retry_after_s))

    # ------------------------------------------------------------ inside

    @property
    def _read_bytes(self) -> int:
        """Up to which length answers are read for their usage; a look-up used nothing."""
        http, limit = self._call.http, self._settings.limits.max_answer_read_bytes
        return limit if http.head.method == b"POST" or self._host.responses.owes(http.path) else 0

    def _read(self, body: bytes) -> Usage | None:
        """What a whole answer tells of its usage."""
        upstream, meter = self._upstream, self._meter
        assert upstream is not None
        maker = self._replica, self._model, 0 if meter is None else meter.input_tokens_estimate
        return self._host.responses.read(upstream.dialect, self._call, body, maker)

    def _is_no_answer(self, status: int) -> bool:
        """Whether it is an error, or sends a caller of the model away, to where only we may go."""
        asks_model = self._call.request.endpoint is not Endpoint.OTHER
        return status >= 400 or (status >= 300 and asks_model)

    def _engine_refused(self, body: bytes) -> None:
        """An error answer: the request's own fault, or a reason to try another replica."""
        assert self._upstream is not None
        refusal = self._upstream.dialect.classify_error(self._status, body)
        if refusal.retryable:
            self._refused_with = body
            detail = f"{refusal.value}, HTTP {self._status}"
            self._end(Outcome.UNAVAILABLE, status=self._status, detail=detail)
            return
        self._end(Outcome.REFUSED, status=self._status)
        self._pass_error(body)

    def _pass_error(self, body: bytes) -> None:
        """Pass an engine's error on; one without a word gets some of ours."""
        self._over(self._status, "" if self._status < 500 else str(self._status))
        if not body:
            message = f"The engine answered HTTP {self._status} and said nothing more."
            body = error_body(self._status, message, path=self._call.http.path, code="engine_error")
            self._answer = _OURS
        self._start(length=len(body))
        self._connection.finish(body)

    def _start(self, *, length: int | None = None) -> None:
        """Send the answer's head, with the client's first byte: no other attempt follows."""
        self._sent = True
        self._call.forget_body()
        self._connection.forget_body()
        if length is None and isinstance(self._relay, BodyRelay):
            length = self._answer.length
        fields = self._answer.fields + self._identity()
        self._connection.start_rendered(self._status, fields, length=length)

    def _break_off(self, outcome: Outcome, reason: str) -> None:
        """End an answer that has begun and cannot be completed."""
        self._end(outcome, detail=reason)
        self._over(self._status, outcome.value)
        if isinstance(self._relay, StreamRelay):
            where = "" if outcome is Outcome.CUT else f" at replica {self._replica}"
            message = f"The stream broke off{where}: {reason}."
            code = "cut_off" if outcome is Outcome.CUT else "upstream_broken"
            event = error_event(self._call.request.endpoint, message, code)
            self._connection.finish(b"".join((*self._out, event)), close=True)
        else:
            self._connection.abort()

    def _end(
        self,
        outcome: Outcome,
        *,
        status: int | None = None,
        detail: str = "",
        usage: Usage | None = None,
        reached: bool = True,
    ) -> None:
        """Close the attempt's accounts. The core's effects may dispatch or reject at once."""
        meter, self._meter = self._meter, None
        if meter is None:
            return
        now = self._host.now()
        if not self._sent and meter.chunks and outcome not in _ANSWERED:
            meter.nothing_sent()  # the answer broke in the read that brought its first tokens
        usage = self._counted(meter, outcome, usage)
        output_tokens = usage.output_tokens if usage is not None else meter.estimated_output_tokens
        wait_s = None if status is None else self._answer.retry_after_s
        ended = Ended(self._attempt, outcome, usage, output_tokens, status, detail, wait_s, reached)
        if self._attempt_trace is not None:
            first_s = meter.first_s
            ttft_s = None if first_s is None else first_s - self._sent_s
            self._attempt_trace.end(ended, self._status, ttft_s)
        retryable = outcome in _RETRYABLE
        if retryable or outcome is _BROKEN:
            self._host.telemetry.attempt_failed(self._replica, detail or outcome.value, now)
        self._host.apply(ended, now)
        again = self._has_attempt  # the core may have dispatched it by now, and it goes on
        if not again and retryable and self._phase is not _OVER:
            again = bool(self._host.held_for(self.id))
            if again:
                self._host.hold(self)
        counted = meter.finish(outcome, usage, now, retried=again)
        if usage is None and self._sent:
            self._remember(counted)
        if retryable and not again and self._phase is not _OVER:
            # It always says what becomes of such an end; a client must not wait if it did not.
            reason = f"Replica {self._replica} gave no answer: {detail}."
            self.reject(Reject(self.id, 502, RejectReason.RETRIES_EXHAUSTED, reason))

    @property
    def _has_attempt(self) -> bool:
        """Whether an attempt is under way."""
        return self._meter is not None

    def _counted(self, meter: Meter, outcome: Outcome, told: Usage | None) -> Usage | None:
        """What the attempt used: the engine's word, None where it gave none that can be true."""
        relay = self._relay
        usage = told if relay is None else relay.usage
        if usage is not None:
            request, whole = self._call.request, outcome is _COMPLETED
            usage = believed(usage, request, meter, completed=whole, settings=self._settings)
        if usage is None:
            meter.reads_audio = self._call.http.path in AUDIO
        return usage

    def _remember(self, owed: Usage | None = None) -> None:
        """A response that may be stored is found again from its first event on."""
        response_id = None if self._relay is None else self._relay.response_id
        if response_id:
            self._host.responses.remember(response_id, self._replica, self._model, owed=owed)

    def _over(self, status: int | None, error: str = "") -> None:
        """Nothing more comes; `status` and `error` as `RequestTrace.end` takes them."""
        self._phase = _OVER
        if self._trace is not None:
            self._trace.end(status, error)
        self._host.over(self)

    def _cancel_upstream(self) -> None:
        call, self._upstream_call = self._upstream_call, None
        if call is not None:
            call.cancel()

    def _payload(self, body: list[bytes], address: Address) -> list[bytes]:
        upstream = self._upstream
        assert upstream is not None
        trace = self._attempt_trace
        return payload_of(self._call, self._attempt, body, upstream, address, trace=trace)

    def _identity(self) -> bytes:
        return identity_of(self._call.request, self._replica)
