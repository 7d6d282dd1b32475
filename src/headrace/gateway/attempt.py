"""One dispatch of a request to a replica: sent, its answer relayed, its accounts closed.

    send ─► answer_head ─► answer_body* ─► answer_complete        or all of it: answer_whole
      └──────────┴─ answer_failed, an error answer, a deadline, or a client that leaves

The attempt tells the core what the replica does and what the answer used. What becomes of the
request then is the exchange's business: another attempt, an error, or the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from headrace.core.events import Dispatch, Ended, FirstToken, Reject, RejectReason
from headrace.core.model import Endpoint, Outcome, Usage
from headrace.edges.http.client import RESEND_S, UpstreamCall
from headrace.edges.http.errors import error_body
from headrace.edges.http.ports import AnswerHead
from headrace.gateway.believed_usage import believed
from headrace.gateway.breakage import error_event
from headrace.gateway.endpoints import AUDIO
from headrace.gateway.engine_request import identity_of, payload_of
from headrace.gateway.metrics.meter import Meter
from headrace.gateway.notes import OURS, AnswerNotes
from headrace.gateway.readers import reader_of
from headrace.gateway.relay import BodyRelay, ErrorRelay, Relay, StreamRelay, UntypedRelay
from headrace.gateway.steady import Steady
from headrace.gateway.tracing import AttemptTrace, RequestTrace
from headrace.gateway.upstream import Upstream

if TYPE_CHECKING:
    from headrace.gateway.exchange import Exchange
    from headrace.gateway.server import DataPlane

_RETRYABLE: Final = frozenset((Outcome.UNAVAILABLE, Outcome.TIMED_OUT))
_ANSWERED: Final = frozenset((Outcome.COMPLETED, Outcome.BROKEN))  # the client gets what came
_BROKEN: Final = Outcome.BROKEN
_COMPLETED: Final = Outcome.COMPLETED


class Attempt:
    """Serves as the engine's sink. The exchange has at most one that is under way."""

    __slots__ = (
        "_answer",
        "_answering",
        "_call",
        "_connection",
        "_exchange",
        "_host",
        "_last_byte_s",
        "_meter",
        "_number",
        "_out",
        "_paused",
        "_relay",
        "_sent_s",
        "_settings",
        "_steady",
        "_tokens_started",
        "_trace",
        "_upstream",
        "_upstream_call",
        "answer_begun",
        "model",
        "refused_with",
        "replica",
        "status",
    )

    def __init__(
        self, host: DataPlane, exchange: Exchange, effect: Dispatch, upstream: Upstream
    ) -> None:
        self._host = host
        self._exchange = exchange
        self._settings = exchange.settings
        self._connection = exchange.connection
        self._call = exchange.call
        self._number = effect.attempt
        self._upstream = upstream
        self._upstream_call: UpstreamCall | None = None
        self._meter: Meter | None = None
        self._relay: Relay | None = None
        self._steady: Steady | None = None
        self._trace: AttemptTrace | None = None
        self._answer = OURS
        self._answering = False
        self._out: list[bytes] = []
        self._tokens_started = False
        self._paused = False
        self._sent_s = self._last_byte_s = host.now()
        self.replica = effect.replica
        self.model = effect.model
        self.status = 0
        """What the engine answered with; 0 before it did."""
        self.answer_begun = False
        """Whether the client has seen a byte of it: no other attempt follows."""
        self.refused_with: bytes | None = None
        """The engine's own words, where it refused what another replica may take."""

    @property
    def identity(self) -> bytes:
        """The fields that tell which request this is the answer to, and which replica gave it."""
        return identity_of(self._call.request, self.replica)

    @property
    def under_way(self) -> bool:
        """Whether its accounts are open."""
        return self._meter is not None

    def send(
        self,
        effect: Dispatch,
        url: str,
        body: list[bytes],
        *,
        injected: bool,
        trace: RequestTrace | None,
    ) -> None:
        """Send the request to the replica at `url`; `injected` says that we ask for usage."""
        host, upstream, request = self._host, self._upstream, self._call.request
        streamed, endpoint = request.streamed, request.endpoint
        self._meter = meter = host.telemetry.begin(
            effect.model,
            effect.pool,
            effect.replica,
            effect.attempt,
            self._call.http.received_s,
            streamed,
            endpoint,
            effect.prompt_tokens,
            request.sequences,
        )
        if streamed:
            reader = upstream.dialect.stream_reader(
                endpoint, injected=injected, prompts=self._call.prompts
            )
            self._relay = StreamRelay(reader, meter, self._settings.limits.max_event_bytes)
        address = upstream.address(url)
        if trace is not None:
            engine = upstream.dialect.name
            self._trace = trace.attempt(effect, engine, address, self._sent_s)
        payload = payload_of(self._call, self._number, body, upstream, address, trace=self._trace)
        self._upstream_call = host.pool.open(address, payload, self)

    # ------------------------------------------------------------ what the engine answers

    def answer_head(self, head: AnswerHead) -> None:
        """Choose how the body is relayed. Nothing reaches the client before its first byte."""
        self._answering = True
        self._last_byte_s = self._host.now()
        self.status = head.status
        notes: AnswerNotes | None = head.notes
        if notes is None:
            notes = head.notes = AnswerNotes(head)
        self._answer = notes
        if self._is_no_answer(head.status):
            self._relay = ErrorRelay()
        elif notes.streams:
            if self._upstream_call is not None and self._upstream.dialect.closes_after_stream:
                self._upstream_call.reusable = False
            if self._relay is None:  # a stream that the request's body did not ask for
                assert self._meter is not None
                self._host.telemetry.stream_begun(self._meter)
                reader = reader_of(self._call, self._upstream.dialect, self._host.responses)
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
            if not self.answer_begun:
                self._start()
            self._connection.write(out[0] if len(out) == 1 else b"".join(out))
            out.clear()
        if not self._tokens_started and meter is not None and meter.first_s is not None:
            # Not before it was sent: from here on the core knows that a retry is too late.
            self._tokens_started = True
            self._flow(meter)
            self._remember()
            self._host.apply(FirstToken(self._number), meter.first_s)

    def _flow(self, meter: Meter) -> None:
        """From its first token on, ordinary chunks of a stream may pass as they come."""
        relay, call, write = self._relay, self._upstream_call, self._connection.write_chunk
        if isinstance(relay, StreamRelay) and call is not None and write is not None:
            self._steady = Steady(relay, meter, write)
            call.let_pass(self._steady.takes, late_acks=self._upstream.dialect.sends_at_once)

    def answer_complete(self, framed: bool) -> None:
        """The answer is whole."""
        relay = self._relay
        self._upstream_call = None
        if relay is None or self._exchange.is_over:
            return
        self._out.append(relay.finish())
        if self._is_no_answer(self.status):
            self._engine_refused(b"".join(self._out))
            return
        self._remember()
        if isinstance(relay, StreamRelay) and not framed and not relay.done:
            self.answer_failed("the stream ended without its end mark")
            return
        fails = isinstance(relay, StreamRelay) and relay.error  # in the engine's own words
        outcome = _BROKEN if fails else _COMPLETED
        self._end(outcome, status=self.status)
        self._exchange.over(self.status, outcome.value if fails else "")
        last = b"".join(self._out)
        if not self.answer_begun:
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
        self._answering = True
        self._answer, self.status = notes, head.status
        self._end(_COMPLETED, status=head.status, usage=self._read(body))
        self._exchange.over(head.status)
        self._connection.respond_rendered(head.status, notes.fields + self.identity, body)

    def answer_failed(self, reason: str) -> None:
        """The connection could not be made, or broke."""
        call, self._upstream_call = self._upstream_call, None
        if self.answer_begun:
            self._break_off(Outcome.BROKEN, reason)
        else:
            reached = call is None or call.sent
            self._end(Outcome.UNAVAILABLE, detail=reason, reached=reached)

    def answer_cut(self, reason: str) -> None:
        """A fault of ours, or a lack of this machine: the replica is not blamed for it."""
        self._upstream_call = None
        self._exchange.give_up(500, "internal", reason)

    # ------------------------------------------------------------ what the client does

    def leave(self) -> None:
        """Nobody waits any more: the engine must stop at once."""
        self._cancel()
        self._end(Outcome.ABORTED, detail="the client closed its connection")

    def pause(self) -> None:
        """Stop reading from the engine."""
        self._paused = True
        if self._upstream_call is not None:
            self._upstream_call.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._last_byte_s = self._host.now()
        if self._upstream_call is not None:
            self._upstream_call.resume()

    # ------------------------------------------------------------ deadlines

    def check(self, now: float) -> None:
        """End what takes longer than its limit; called a few times a second."""
        timeouts, call = self._settings.timeouts, self._upstream_call
        if self._answering:
            if not self._paused and now - self._heard_s > timeouts.between_bytes_s:
                self.expire(f"the answer stalled for {timeouts.between_bytes_s:g} s")
        elif call is None:
            return
        elif not call.connected:
            # A call may connect anew when a kept-alive connection was lost under it.
            if now - self._sent_s > timeouts.connect_s + RESEND_S:
                self.expire(f"no connection within {timeouts.connect_s:g} s")
        elif now - self._sent_s > timeouts.first_byte_s:
            reason = f"no answer within {timeouts.first_byte_s:g} s"
            if self._call.request.streamed:
                self.expire(reason)
            else:  # it may just be long; to begin it anew elsewhere would triple the work
                self._exchange.give_up(504, "upstream_timeout", reason)

    @property
    def _heard_s(self) -> float:
        """When the engine said something last."""
        if self._steady is None or self._meter is None:
            return self._last_byte_s
        return max(self._last_byte_s, self._meter.latest_s)

    def expire(self, reason: str) -> None:
        """The attempt took too long; as long as the client has seen nothing, another may follow."""
        call = self._upstream_call
        self._cancel()
        if self.answer_begun:
            self._break_off(Outcome.BROKEN, reason)
        else:
            reached = call is None or call.sent
            self._end(Outcome.TIMED_OUT, detail=reason, reached=reached)

    def give_up(self, reason: str) -> None:
        """End for a reason that says nothing about the replica."""
        self._cancel()
        if self.answer_begun:
            self._break_off(Outcome.CUT, reason)
        else:
            self._end(Outcome.CUT, detail=reason)

    # ------------------------------------------------------------ inside

    @property
    def _read_bytes(self) -> int:
        """Up to which length answers are read for their usage; a look-up used nothing."""
        http, limit = self._call.http, self._settings.limits.max_answer_read_bytes
        return limit if http.head.method == b"POST" or self._host.responses.owes(http.path) else 0

    def _read(self, body: bytes) -> Usage | None:
        """What a whole answer tells of its usage."""
        meter = self._meter
        maker = self.replica, self.model, 0 if meter is None else meter.input_tokens_estimate
        return self._host.responses.read(self._upstream.dialect, self._call, body, maker)

    def _is_no_answer(self, status: int) -> bool:
        """Whether it is an error, or sends a caller of the model away, to where only we may go."""
        asks_model = self._call.request.endpoint is not Endpoint.OTHER
        return status >= 400 or (status >= 300 and asks_model)

    def _engine_refused(self, body: bytes) -> None:
        """An error answer: the request's own fault, or a reason to try another replica."""
        refusal = self._upstream.dialect.classify_error(self.status, body)
        if refusal.retryable:
            self.refused_with = body
            detail = f"{refusal.value}, HTTP {self.status}"
            self._end(Outcome.UNAVAILABLE, status=self.status, detail=detail)
            return
        self._end(Outcome.REFUSED, status=self.status)
        self.pass_error(body)

    def pass_error(self, body: bytes) -> None:
        """Pass an engine's error on; one without a word gets some of ours."""
        self._exchange.over(self.status, "" if self.status < 500 else str(self.status))
        if not body:
            message = f"The engine answered HTTP {self.status} and said nothing more."
            body = error_body(self.status, message, path=self._call.http.path, code="engine_error")
            self._answer = OURS
        self._start(length=len(body))
        self._connection.finish(body)

    def _start(self, *, length: int | None = None) -> None:
        """Send the answer's head, with the client's first byte: no other attempt follows."""
        self.answer_begun = True
        self._call.forget_body()
        self._connection.forget_body()
        if length is None and isinstance(self._relay, BodyRelay):
            length = self._answer.length
        fields = self._answer.fields + self.identity
        self._connection.start_rendered(self.status, fields, length=length)

    def _break_off(self, outcome: Outcome, reason: str) -> None:
        """End an answer that has begun and cannot be completed."""
        self._end(outcome, detail=reason)
        self._exchange.over(self.status, outcome.value)
        if isinstance(self._relay, StreamRelay):
            where = "" if outcome is Outcome.CUT else f" at replica {self.replica}"
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
        if not self.answer_begun and meter.chunks and outcome not in _ANSWERED:
            meter.nothing_sent()  # the answer broke in the read that brought its first tokens
        usage = self._counted(meter, outcome, usage)
        output_tokens = usage.output_tokens if usage is not None else meter.estimated_output_tokens
        wait_s = None if status is None else self._answer.retry_after_s
        ended = Ended(self._number, outcome, usage, output_tokens, status, detail, wait_s, reached)
        if self._trace is not None:
            first_s = meter.first_s
            ttft_s = None if first_s is None else first_s - self._sent_s
            self._trace.end(ended, self.status, ttft_s)
        retryable = outcome in _RETRYABLE
        if retryable or outcome is _BROKEN:
            self._host.telemetry.attempt_failed(self.replica, detail or outcome.value, now)
        self._host.apply(ended, now)
        again = self._exchange.has_gone_on(self)  # the core may have dispatched it by now
        if not again and retryable and not self._exchange.is_over:
            again = bool(self._host.held_for(self._exchange.id))
            if again:
                self._host.hold(self._exchange)
        counted = meter.finish(outcome, usage, now, retried=again)
        if usage is None and self.answer_begun:
            self._remember(counted)
        if retryable and not again and not self._exchange.is_over:
            # It always says what becomes of such an end; a client must not wait if it did not.
            reason = f"Replica {self.replica} gave no answer: {detail}."
            reject = Reject(self._exchange.id, 502, RejectReason.RETRIES_EXHAUSTED, reason)
            self._exchange.reject(reject)

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
            self._host.responses.remember(response_id, self.replica, self.model, owed=owed)

    def _cancel(self) -> None:
        call, self._upstream_call = self._upstream_call, None
        if call is not None:
            call.cancel()
