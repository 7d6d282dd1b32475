"""The port through which requests are traced; who does it is wired in from outside.

    begin ─► attempt ─► continued ─► end(Ended) ─► … another attempt … ─► end(status)

Without a tracer nothing of this runs, and the caller's trace context passes as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.core.events import Dispatch, Ended
from headrace.core.model import Request
from headrace.edges.http.address import Address
from headrace.edges.http.heads import Header
from headrace.edges.http.ports import HttpRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """Where traces of requests go. Needs the extra `otel`."""

    endpoint: str
    """Address of an OTLP/HTTP receiver, as `http://127.0.0.1:4318`; `/v1/traces` is added where it
    has no path. Headers and certificates come from OpenTelemetry's own environment variables."""
    sample_ratio: float = 1.0
    """Share of the requests that are traced. Where a caller sends its own trace context, its
    decision stands instead."""
    service_name: str = "headrace"
    """What the traces call this gateway."""


class AttemptTrace(Protocol):
    """One dispatch to a replica."""

    def continued(self, headers: list[Header]) -> list[Header]:
        """The request's fields with this attempt as their trace context."""
        ...

    def end(self, ended: Ended, status: int, ttft_s: float | None) -> None:
        """The attempt is over. `status` is what the engine answered with, 0 if it did not; `ttft_s`
        is from its dispatch to the first content it streamed.
        """
        ...


class RequestTrace(Protocol):
    """One request of a client, all its attempts included."""

    def attempt(
        self, dispatch: Dispatch, engine: str, address: Address, sent_s: float
    ) -> AttemptTrace:
        """The request goes to a replica, whose engine has this dialect, at this monotonic time."""
        ...

    def end(self, status: int | None, error: str = "") -> None:
        """The request is over.

        `status` is what the client was answered, None if it went away before. `error` names, by a
        word of a fixed set, what went wrong with an answer that its status does not tell of.
        """
        ...


class Tracer(Protocol):
    """Makes traces and sends them, without ever holding up the event loop."""

    def begin(self, http: HttpRequest, request: Request | None = None) -> RequestTrace:
        """A request was read; without `request` it was refused before it was understood."""
        ...

    async def close(self) -> None:
        """Send what is left, within a few seconds."""
        ...
