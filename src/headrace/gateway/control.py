"""The control plane: metrics, decisions and the fleet, on a listener of its own.

Reading needs no token: Prometheus scrapes as it is, and what is shown are names and sizes, never
prompts. What writes needs a token off loopback; a listener that others reach is refused by the
configuration without one. A web page must not
reach it through the user's browser: on loopback only loopback names are taken as Host (a rebound
DNS name is not one), and what writes takes only `application/json`, which a page cannot send
across origins without asking first.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from typing import Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.core.decisions import Explanation
from headrace.core.scaling.report import ScalingReport
from headrace.edges.http.errors import error_body
from headrace.edges.http.tls import ServerTls
from headrace.gateway.fleet_view import view_fleet
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.push import PushError, PushReceiver
from headrace.gateway.telemetry import Telemetry

MAX_BODY_BYTES = 1024 * 1024

INDEX = """\
Headrace control plane

GET  /metrics                 Prometheus metrics
GET  /api/v1/fleet            pools, replicas and their state
GET  /api/v1/decisions/{id}   why a request went where it went
GET  /api/v1/decisions/last   the same of the request that came last
GET  /api/v1/scaling          what a scaler is told: totals of demand, replicas, latency
GET  /api/v1/scaler           how many replicas each pool should have, if this gateway scales
POST /telemetry               what an engine's own exporter measured
GET  /health                  this process runs
GET  /ready                   this process takes requests
"""


@dataclass(slots=True)
class ControlSettings:
    """Where the control plane listens and who may write; `token` may change while it does."""

    host: str = "127.0.0.1"
    port: int = 9091
    token: str | None = field(default=None, repr=False)
    """Bearer token for what writes. Off loopback nothing can be written without one."""
    tls: ServerTls | None = None
    """With it the control plane speaks `https`, and only so."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


class ControlPort(Protocol):
    """What the control plane shows of the gateway."""

    @property
    def telemetry(self) -> Telemetry:
        """Figures, and the fleet they are about."""
        ...

    def explain(self, request_id: str) -> Explanation | None:
        """Explain a request by Headrace's id or the client's; None if it is not remembered."""
        ...

    def explain_last(self) -> Explanation | None:
        """Explain the request that came last; None before the first one."""
        ...

    def scaling_report(self) -> ScalingReport:
        """What a scaler is told."""
        ...

    def not_ready_reason(self) -> str | None:
        """Why requests are not taken now, in words; None when they are."""
        ...


def is_loopback(host: str) -> bool:
    """Whether a host name or address, brackets allowed, is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def make_control_app(
    port: ControlPort, settings: ControlSettings, more: Sequence[BaseRoute] = ()
) -> ASGIApp:
    """The control plane as an ASGI application; `more` is what a hosted program shows here."""
    plane = _ControlPlane(port, settings)
    app = Starlette(
        routes=[
            Route("/", plane.index),
            Route("/metrics", plane.metrics),
            Route("/telemetry", plane.telemetry, methods=["POST"]),
            Route("/api/v1/decisions/last", plane.last_decision),
            Route("/api/v1/decisions/{request_id:path}", plane.decision),
            Route("/api/v1/fleet", plane.fleet),
            Route("/api/v1/scaling", plane.scaling),
            Route("/health", plane.health),
            Route("/ready", plane.ready),
            *more,
        ],
        exception_handlers={HTTPException: _http_error},
    )
    return HostCheck(app, settings) if settings.is_loopback else app


class _ControlPlane:
    def __init__(self, port: ControlPort, settings: ControlSettings) -> None:
        self._port = port
        self._settings = settings
        self._receiver = PushReceiver(port.telemetry)
        self._rendering = asyncio.Lock()

    async def index(self, _request: Request) -> Response:
        return PlainTextResponse(INDEX)

    async def health(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, _request: Request) -> Response:
        reason = self._port.not_ready_reason()
        if reason is None:
            return PlainTextResponse("ready\n")
        return PlainTextResponse(f"not ready: {reason}\n", status_code=503)

    async def metrics(self, request: Request) -> Response:
        """The text is made in a thread so that streams go on; one at a time bounds the work."""
        telemetry = self._port.telemetry
        async with self._rendering:
            snapshot = take_snapshot(telemetry, telemetry.clock())
            accept = request.headers.get("accept", "")
            body, content_type = await asyncio.to_thread(
                render, snapshot, accept, telemetry.collectors
            )
        return Response(body, headers={"content-type": content_type, "vary": "accept"})

    async def fleet(self, _request: Request) -> Response:
        telemetry = self._port.telemetry
        return _json(view_fleet(telemetry, telemetry.clock()))

    async def scaling(self, _request: Request) -> Response:
        return _json(self._port.scaling_report())

    async def decision(self, request: Request) -> Response:
        request_id = request.path_params["request_id"]
        explanation = self._port.explain(request_id)
        if explanation is None:
            message = (
                f"no decision is remembered for request id {request_id[:200]!r}. Ids come from "
                "x-headrace-request-id or your own x-request-id; a request refused before it was "
                "routed (400, 401, 413, 429) leaves no decision, and old ones are forgotten "
                "(routing.decisions)"
            )
            return _error(404, message, code="decision_not_found", param="id")
        return self._explained(explanation)

    async def last_decision(self, _request: Request) -> Response:
        explanation = self._port.explain_last()
        if explanation is None:
            message = "no request was routed yet; one refused before that leaves no decision"
            return _error(404, message, code="decision_not_found")
        return self._explained(explanation)

    def _explained(self, explanation: Explanation) -> Response:
        age_s = self._port.telemetry.clock() - explanation.arrived_s
        return _json({"age_s": age_s, **asdict(explanation)})

    async def telemetry(self, request: Request) -> Response:
        self._authorize(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            message = f"content-type is {media_type!r}; send application/json"
            return _error(415, message, code="unsupported_media_type", param="content-type")
        peer = "" if request.client is None else request.client.host
        try:
            result = self._receiver.receive(await _read_body(request), peer)
        except PushError as error:
            return _error(400, str(error), code="invalid_value", param=error.field or None)
        return _json(result)

    def _authorize(self, request: Request) -> None:
        token = self._settings.token
        if token is None:
            if self._settings.is_loopback:
                return
            raise HTTPException(
                403,
                f"writing is off: the control plane listens on {self._settings.host}, which is "
                "not loopback, and has no token; give it one in the configuration",
            )
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(presented.strip().encode(), token.encode())
        if scheme.lower() != "bearer" or not known:
            raise HTTPException(
                401,
                "the control plane's token is missing or wrong; send it as "
                "`Authorization: Bearer …`",
                headers={"www-authenticate": "Bearer"},
            )


async def _read_body(request: Request) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise HTTPException(
                    413, f"the body is over {MAX_BODY_BYTES} bytes; send fewer reports at a time"
                )
            pieces.append(piece)
    except ClientDisconnect:
        raise HTTPException(400, "the body broke off") from None
    return b"".join(pieces)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _error(status: int, message: str, *, code: str | None, param: str | None = None) -> Response:
    body = error_body(status, message, code=code, param=param)
    return Response(body, status_code=status, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code == 404:
        message = f"nothing is at {request.url.path[:200]!r}; GET / lists what there is"
    elif error.status_code == 405:
        message = f"{request.method} is not possible at {request.url.path[:200]!r}"
    response = _error(error.status_code, message, code=None)
    response.headers.update(error.headers or {})
    return response


class HostCheck:
    """Answers 403 to a Host that is not a loopback name."""

    def __init__(self, app: ASGIApp, settings: ControlSettings) -> None:
        self._app = app
        self._host = settings.host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what names this machine."""
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not self._is_own(hosts[0].decode("latin-1")):
                message = (
                    f"Host {b', '.join(hosts)[:200].decode('latin-1')!r} is not a loopback name; "
                    f"use http://{self._host}:PORT"
                )
                await _error(403, message, code="host_not_allowed")(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_own(self, host: str) -> bool:
        name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
        return name.lower() == self._host or is_loopback(name.lower())
