"""Traces of requests by OpenTelemetry, sent over OTLP/HTTP. Needs the extra `otel`.

    POST /v1/chat/completions     SERVER: the request, time held at the gateway included
    └── chat smollm2              CLIENT: the operation, from its first dispatch, retries included
        ├── POST                  CLIENT: one attempt
        └── POST                  CLIENT: another

Names and attributes follow the semantic conventions for HTTP and for GenAI inference clients. Usage
stands on operations alone, so that sums over spans count each token once. No span holds anything of
a prompt, an answer or a key. A client that goes away is an outcome, not an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as SpanMaker
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import headrace
from headrace.core.events import Dispatch, Ended
from headrace.core.model import Endpoint, Outcome, Request
from headrace.edges.http.address import Address
from headrace.edges.http.heads import Header
from headrace.edges.http.ports import HttpRequest, RequestHead

MAX_WAITING_SPANS = 4096
"""Spans that wait to be sent; what comes on top while the receiver is down or slow is dropped."""
SPANS_PER_EXPORT = 512
EXPORT_INTERVAL_S = 2.0
EXPORT_TIMEOUT_S = 5.0
CLOSE_S = 5.0
"""At the end, what is left gets this long to be sent."""
TROUBLE_INTERVAL_S = 60.0
"""Between two lines about a receiver that is down: it may be so all night."""
MAX_ATTRIBUTE_CHARS = 1024
MAX_INT = 2**63 - 1
"""OTLP has no more; the exporter prints a traceback for each greater number."""

_CONTEXT_FIELDS: Final = (b"traceparent", b"tracestate")
_OPERATIONS = {
    Endpoint.CHAT: "chat",
    Endpoint.RESPONSES: "chat",
    Endpoint.MESSAGES: "chat",
    Endpoint.COMPLETIONS: "text_completion",
    Endpoint.EMBEDDINGS: "embeddings",
}
"""`gen_ai.operation.name`; what is not here has no operation, only plain HTTP calls."""

_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)
"""Those that `http.request.method` may name; any other is `_OTHER` there."""

_propagator = TraceContextTextMapPropagator()
for _reader in ("opentelemetry.trace.span", "opentelemetry.trace.propagation.tracecontext"):
    # They warn of each field that a client has wrong, with what it wrote: as many lines, of as many
    # kilobytes, as anybody sends requests.
    logging.getLogger(_reader).setLevel(logging.ERROR)


class Sparing(logging.Filter):
    """Lets a line through once in `TROUBLE_INTERVAL_S`."""

    next_s = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is told."""
        told = record.created >= self.next_s
        if told:
            self.next_s = record.created + TROUBLE_INTERVAL_S
        return told


sparing = Sparing()
"""Of what goes wrong on the way to the receiver: each batch would take three lines."""
logging.getLogger(OTLPSpanExporter.__module__).addFilter(sparing)


def _unsaid(record: logging.LogRecord) -> bool:
    record.args = ("***",)
    return True


logging.getLogger("opentelemetry.util.re").addFilter(_unsaid)
"""It warns of a malformed OTEL_EXPORTER_OTLP_HEADERS, with the key that is in it."""


class OtelTracer:
    """Makes spans on the event loop and sends them from a thread of its own."""

    def __init__(
        self, endpoint: str, *, sample_ratio: float, service_name: str, scheme: str = "http"
    ) -> None:
        """`scheme` is the one by which clients connect."""
        self._scheme = scheme
        self._exporter = OTLPSpanExporter(traces_url(endpoint), timeout=EXPORT_TIMEOUT_S)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create(
                {SERVICE_NAME: service_name, SERVICE_VERSION: headrace.__version__}
            ),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=MAX_ATTRIBUTE_CHARS),
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=MAX_WAITING_SPANS,
                max_export_batch_size=SPANS_PER_EXPORT,
                schedule_delay_millis=EXPORT_INTERVAL_S * 1000,
            )
        )
        self._spans = self._provider.get_tracer("headrace", headrace.__version__)

    def begin(self, http: HttpRequest, request: Request | None = None) -> OtelRequest:
        """Open the span of a request, as a child of what the caller says in `traceparent`."""
        path = http.path.decode("latin-1")
        attributes: dict[str, str | int | bool] = {"url.path": path, "url.scheme": self._scheme}
        method = name = _name_method(http.head, attributes)
        if request is not None:
            attributes["headrace.request_id"] = request.id
            attributes["headrace.model"] = request.model
            if request.endpoint is not Endpoint.OTHER:
                # The path of these has no names in it, so it is the route, too.
                attributes["http.route"] = path
                name = f"{method} {path}"
        span = self._spans.start_span(
            name,
            _caller(http.headers),
            SpanKind.SERVER,
            attributes,
            start_time=_wall_ns(http.received_s),
        )
        return OtelRequest(self._spans, span, http.head, request)

    async def close(self) -> None:
        """Send what is left; after `CLOSE_S` give up what could not be sent."""
        sending = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        done, _ = await asyncio.wait({sending}, timeout=CLOSE_S)
        if not done:
            self._exporter.shutdown()
        await sending


class OtelRequest:
    """The server span of a request."""

    __slots__ = ("_context", "_head", "_operation", "_request", "_span", "_spans", "_tried")

    def __init__(
        self, spans: SpanMaker, span: Span, head: RequestHead, request: Request | None
    ) -> None:
        self._spans = spans
        self._head = head
        self._span = span
        self._context = set_span_in_context(span, Context())
        self._request = request
        self._operation: _Operation | None = None
        self._tried = 0

    def attempt(
        self, dispatch: Dispatch, engine: str, address: Address, sent_s: float
    ) -> OtelAttempt:
        """Open the span of an attempt, and with the first one that of its operation."""
        if not self._span.is_recording():
            # Of a trace that is not sampled the engine gets an id, and nothing else is wanted.
            span = self._spans.start_span("attempt", self._context, SpanKind.CLIENT)
            return OtelAttempt(span, None, sent_s)
        start_ns = _wall_ns(sent_s)
        operation = self._operation_of(dispatch, engine, address, sent_s, start_ns)
        head = self._head
        attributes: dict[str, str | int | bool] = {
            "server.address": address.host,
            "url.full": _url(address, head.path.decode("latin-1")),
            "headrace.attempt": dispatch.attempt,
            "headrace.pool": dispatch.pool,
            "headrace.replica": dispatch.replica,
        }
        if address.port:
            attributes["server.port"] = address.port
        if self._tried:
            attributes["http.request.resend_count"] = self._tried
        self._tried += 1
        context = self._context if operation is None else operation.context
        span = self._spans.start_span(
            _name_method(head, attributes),
            context,
            SpanKind.CLIENT,
            attributes,
            start_time=start_ns,
        )
        return OtelAttempt(span, operation, sent_s)

    def _operation_of(
        self, dispatch: Dispatch, engine: str, address: Address, sent_s: float, start_ns: int
    ) -> _Operation | None:
        """The operation that an attempt belongs to; None for what is no inference."""
        request = self._request
        name = _OPERATIONS.get(request.endpoint) if request is not None else None
        if request is None or name is None:
            return None
        attributes: dict[str, str | int | bool] = {
            "gen_ai.operation.name": name,
            "gen_ai.provider.name": engine,
            "gen_ai.request.model": dispatch.model,
        }
        title = f"{name} {dispatch.model}"
        operation = self._operation
        if operation is not None:
            operation.goes_to(title, attributes, address)
            return operation
        if request.streamed:
            attributes["gen_ai.request.stream"] = True
        if request.sequences > 1 and request.endpoint is Endpoint.CHAT:
            # Of completions these are choices times prompts.
            attributes["gen_ai.request.choice.count"] = request.sequences
        if request.max_output_tokens is not None and request.max_output_tokens <= MAX_INT:
            attributes["gen_ai.request.max_tokens"] = request.max_output_tokens
        span = self._spans.start_span(
            title, self._context, SpanKind.CLIENT, attributes, start_time=start_ns
        )
        self._operation = operation = _Operation(span, sent_s, address)
        return operation

    def end(self, status: int | None, error: str = "") -> None:
        """Close the span and its operation's. A 4xx is the client's error, not the server's."""
        if self._operation is not None:
            self._operation.end(left=status is None)
        span, attributes = self._span, dict[str, str | int]()
        if status is not None:
            attributes["http.response.status_code"] = status
        if error or (status is not None and status >= 500):
            attributes["error.type"] = error or str(status)
            span.set_status(Status(StatusCode.ERROR))
        span.set_attributes(attributes)
        span.end()


class _Operation:
    """The GenAI span of a request: one, over all its attempts."""

    __slots__ = ("_address", "_ended", "_span", "_started_s", "_ttft_s", "context")

    def __init__(self, span: Span, started_s: float, address: Address) -> None:
        self._span = span
        self._started_s = started_s
        # Told at its end: a span's attribute can be changed and not taken back, and after a port
        # may come a Unix socket, which has none.
        self._address = address
        self.context = set_span_in_context(span, Context())
        self._ended: Ended | None = None
        self._ttft_s: float | None = None

    def goes_to(
        self, title: str, attributes: dict[str, str | int | bool], address: Address
    ) -> None:
        """Another attempt follows, perhaps of another model and at another engine."""
        self._address = address
        self._span.update_name(title)
        self._span.set_attributes(attributes)

    def attempt_ended(self, ended: Ended, sent_s: float, ttft_s: float | None) -> None:
        """What came of the latest attempt."""
        self._ended = ended
        self._ttft_s = None if ttft_s is None else sent_s - self._started_s + ttft_s

    def end(self, *, left: bool) -> None:
        """Close the span with what came of the last attempt; `left` is the client's leaving."""
        span, ended, address = self._span, self._ended, self._address
        attributes: dict[str, str | int | float] = {"server.address": address.host}
        if address.port:
            attributes["server.port"] = address.port
        if ended is not None:
            usage = ended.usage
            if self._ttft_s is not None:
                attributes["gen_ai.response.time_to_first_chunk"] = self._ttft_s
            if usage is not None:
                attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
                attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
                if usage.cached_tokens:
                    attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
            if not left:
                _mark_error(span, ended, attributes)
        span.set_attributes(attributes)
        span.end()


class OtelAttempt:
    """The client span of an attempt."""

    __slots__ = ("_operation", "_sent_s", "_span")

    def __init__(self, span: Span, operation: _Operation | None, sent_s: float) -> None:
        self._span = span
        self._operation = operation
        self._sent_s = sent_s

    def continued(self, headers: list[Header]) -> list[Header]:
        """The fields with this span in `traceparent`, also where it is not sampled."""
        fields: dict[str, str] = {}
        _propagator.inject(fields, set_span_in_context(self._span, Context()))
        if not fields:  # OpenTelemetry is switched off by its own environment variable
            return headers
        others = [header for header in headers if header[0] not in _CONTEXT_FIELDS]
        return others + [(name.encode(), value.encode()) for name, value in fields.items()]

    def end(self, ended: Ended, status: int, ttft_s: float | None) -> None:
        """Close the span with what came of the attempt."""
        span = self._span
        if not span.is_recording():
            return
        attributes: dict[str, str | int | float] = {"headrace.outcome": ended.outcome.value}
        if status:
            attributes["http.response.status_code"] = status
        _mark_error(span, ended, attributes)
        span.set_attributes(attributes)
        span.end()
        if self._operation is not None:
            self._operation.attempt_ended(ended, self._sent_s, ttft_s)


def _name_method(head: RequestHead, attributes: dict[str, str | int | bool]) -> str:
    """Set the attributes of the method; what a span of it is called without a route."""
    method = head.method.decode("latin-1")
    if method in _METHODS:
        attributes["http.request.method"] = method
        return method
    attributes["http.request.method_original"] = method
    attributes["http.request.method"] = "_OTHER"
    return "HTTP"


def _mark_error(span: Span, ended: Ended, attributes: dict[str, str | int | float]) -> None:
    """Say that an attempt, or the operation that it was the last of, went wrong, if it did."""
    if ended.outcome not in (Outcome.COMPLETED, Outcome.ABORTED):
        code = ended.outcome.value if ended.status is None else str(ended.status)
        attributes["error.type"] = code
        span.set_status(Status(StatusCode.ERROR, ended.detail or None))


def _url(address: Address, path: str) -> str:
    """`url.full` without the query, which may hold a key, and without what stands before an `@`."""
    place = address.host_header.rpartition(b"@")[2] + address.base
    return f"{'http' if address.tls is None else 'https'}://{place.decode('latin-1')}{path}"


def _wall_ns(monotonic_s: float) -> int:
    """The wall clock's nanoseconds at a time on `time.monotonic`'s scale."""
    return time.time_ns() - int((time.monotonic() - monotonic_s) * 1e9)


def traces_url(endpoint: str) -> str:
    """The address that spans are sent to: `/v1/traces` where `endpoint` has no path of its own."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"


def _caller(headers: list[Header]) -> Context:
    """The caller's span, or none; W3C Trace Context allows one `traceparent` and many states."""
    parents = [value for name, value in headers if name == b"traceparent"]
    if len(parents) != 1:
        return Context()
    states = [value for name, value in headers if name == b"tracestate"]
    carrier = {
        "traceparent": parents[0].decode("latin-1"),
        "tracestate": b",".join(states).decode("latin-1"),
    }
    return _propagator.extract(carrier, Context())
