"""A real OTLP/HTTP receiver on a real port: decodes the protobuf that collectors get."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class ReceivedSpan:
    """One span as it came over the wire; ids in hex, times in nanoseconds."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    start_ns: int
    end_ns: int
    is_error: bool
    message: str
    attributes: dict[str, object]
    resource: dict[str, object]


@dataclass
class OtlpReceiver:
    """Serves `POST /v1/traces` between `with`; while `gate` is cleared it does not answer."""

    spans: list[ReceivedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> OtlpReceiver:
        self.gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def of_kind(self, kind: str) -> list[ReceivedSpan]:
        """The spans of a kind (`server`, `client`) in the order of their start."""
        found = [span for span in self.spans if span.kind == kind]
        return sorted(found, key=lambda span: span.start_ns)

    def operations(self) -> list[ReceivedSpan]:
        """The GenAI spans, in the order of their start."""
        return [
            span for span in self.of_kind("client") if "gen_ai.operation.name" in span.attributes
        ]

    def attempts(self) -> list[ReceivedSpan]:
        """The spans of HTTP requests to engines, in the order of their start."""
        return [span for span in self.of_kind("client") if "http.request.method" in span.attributes]

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        self.bodies.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(group.resource.attributes)
            for scope in group.scope_spans:
                self.spans += [_received(span, resource) for span in scope.spans]


def _received(span: Span, resource: dict[str, object]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        is_error=span.status.code == 2,
        message=span.status.message,
        attributes=_plain(span.attributes),
        resource=resource,
    )


def _plain(attributes: Iterable[KeyValue]) -> dict[str, object]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in attributes
    }


def _handler(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.asked.set()
            receiver.gate.wait(60)
            receiver.take(self.path, body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base class names it
            """Nothing on stderr."""

    return Handler
