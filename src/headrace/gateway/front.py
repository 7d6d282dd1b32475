"""What the data plane answers by itself, and where a request for an engine begins."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from headrace.core.model import Endpoint
from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.errors import error_body
from headrace.edges.http.heads import Header
from headrace.edges.http.ports import Exchange as InFlight
from headrace.edges.http.ports import HttpRequest, Refusal, RequestHead
from headrace.gateway.call import (
    LARGE_BODY_BYTES,
    BadRequest,
    Origin,
    check_encoding,
    is_large,
    read_call,
    read_large_call,
    read_other_call,
    read_usual_call,
)
from headrace.gateway.endpoints import (
    ENGINE_ADMIN,
    UNVERSIONED,
    endpoint_of,
    is_engines,
    stored_response_id,
)
from headrace.gateway.models import render_model, render_models
from headrace.gateway.notes import JSON, RequestNotes, client_id, notes_of
from headrace.gateway.promise import TIER

if TYPE_CHECKING:
    from headrace.gateway.server import DataPlane

_log = logging.getLogger(__name__)
_STATES: Final = frozenset((b"/health", b"/ready"))
_POST: Final = frozenset((b"POST",))
_OTHERS: Final = b", ".join(sorted(UNVERSIONED)).decode()
_UPSTREAM_METHODS: Final = frozenset((b"GET", b"POST", b"DELETE", b"PUT", b"PATCH"))


class Reading:
    """A request whose large body is still being read, then a stand-in for its exchange."""

    __slots__ = ("exchange", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.exchange: InFlight | None = None

    def client_gone(self) -> None:
        """Stop reading, or tell the exchange."""
        if self.exchange is not None:
            self.exchange.client_gone()
        elif self.task is not None:
            self.task.cancel()

    def client_slow(self) -> None:
        """Nothing is written before the exchange has begun."""
        if self.exchange is not None:
            self.exchange.client_slow()

    def client_ready(self) -> None:
        """See `client_slow`."""
        if self.exchange is not None:
            self.exchange.client_ready()


class Front:
    """The handler behind the data plane's listener."""

    def __init__(self, host: DataPlane) -> None:
        self._host = host
        self._id_prefix = f"hr-{secrets.token_hex(4)}-"
        self._requests = 0
        self._readings = 0

    @property
    def reading(self) -> int:
        """Requests whose large bodies are being read."""
        return self._readings

    def refusal_of(self, head: RequestHead) -> Refusal | None:
        """Strangers are refused before their bodies are taken in."""
        keys = self._host.keys
        notes: RequestNotes | None = head.notes
        if notes is None or notes.keys is not keys:
            notes = notes_of(head, keys)
        if notes.tenant is None and is_engines(head.path):
            return Refusal(
                401,
                "This gateway asks for an API key of its own: send 'Authorization: Bearer KEY'."
                " The key is missing or not known.",
                "invalid_api_key",
            )
        return None

    def refusal_without_body(self, head: RequestHead) -> Refusal | None:
        """What no body can mend is answered before the body is asked for."""
        try:
            self._check_head(head)
            if is_engines(head.path) and not _is_models(head.path):
                self._holder(head.path)
                check_encoding(head.headers)
        except BadRequest as error:
            return Refusal(error.status, error.message, error.code, error.param, error.allow)
        return None

    def refused(self, refusal: Refusal, headers: list[Header]) -> list[Header]:
        """Count an error of the listener; its answer is identified like any other."""
        self._host.telemetry.reject(refusal.code or f"http_{refusal.status}")
        return [*self._identity(headers), *_advice(refusal.status, refusal.allow)]

    def handle(self, request: HttpRequest, connection: ClientConnection) -> InFlight | None:
        """Answer a request, or start its exchange."""
        keys = self._host.keys
        notes: RequestNotes | None = request.head.notes
        if notes is None or notes.keys is not keys:
            notes = notes_of(request.head, keys)
        try:
            if notes.tenant is None:  # the keys may have changed since its head was judged
                self._check_key(request.head)
            if notes.is_call and request.body_bytes <= LARGE_BODY_BYTES:
                if self._host.full:
                    self._check_room()
                if notes.asks:
                    self._check_promise(notes)
                id_, tenant = self._new_id(), notes.tenant or ""
                caller = tenant or connection.client
                call = read_usual_call(request, notes, id_, tenant, caller)
                if call is None:
                    origin = Origin(id_, tenant, "", "", self._holder_of, caller)
                    call = read_other_call(request, origin)
                return self._host.begin(call, connection)
            if is_engines(request.path):
                return self._handle_api(request, connection, notes)
            self._handle_own(request, connection)
        except BadRequest as error:
            self._refuse(request, connection, error)
        return None

    def _handle_own(self, request: HttpRequest, connection: ClientConnection) -> None:
        host = self._host
        self._check_head(request.head)
        headers = [JSON, *self._identity(request.headers)]
        if request.path == b"/health":
            connection.respond(200, headers, b'{"status":"ok"}')
        else:
            why_not = host.unready_because
            body = b'{"status":"%b"}' % (why_not or "ready").encode()
            connection.respond(503 if why_not else 200, headers, body)

    def _check_head(self, head: RequestHead) -> None:
        """Raise `BadRequest` for what is refused whatever its body holds."""
        path = head.path
        if path in _STATES:
            _check_read(head, path)
        elif _is_models(path):
            _check_read(head, b"/v1/models")
        elif is_engines(path):
            _check_path(path)
            _check_method(head)
            self._check_promise(notes_of(head, self._host.keys))
            if path.rstrip(b"/") in ENGINE_ADMIN:
                raise BadRequest(
                    f"{_shown(path)} changes the engine for everybody; call the engine itself.",
                    status=403,
                    code="not_for_clients",
                )
        else:
            raise BadRequest(
                f"There is nothing at {_shown(path)}. The data plane serves /v1/*, {_OTHERS},"
                " /health and /ready; metrics and the admin API are on the control plane's port.",
                status=404,
                code="not_found",
            )

    def _check_key(self, head: RequestHead) -> None:
        refusal = self.refusal_of(head)
        if refusal is not None:
            raise BadRequest(refusal.message, status=refusal.status, code=refusal.code)

    def _check_room(self) -> None:
        limit = self._host.limits.max_in_flight
        if self._host.full:
            raise BadRequest(
                f"This gateway serves {limit} requests at once (limits.max_in_flight).",
                status=429,
                code="too_many_requests",
            )

    def _check_promise(self, notes: RequestNotes) -> None:
        error = notes.bad_promise
        if error is not None:
            raise BadRequest(str(error), code=error.code, param=error.param)
        tier, known = notes.promise.tier, self._host.tiers
        if tier and tier not in known:
            raise BadRequest(
                f"{TIER.decode()!r} is {tier[:64]!a}; tiers here are: {', '.join(known)}.",
                code="unknown_tier",
                param=TIER.decode(),
            )

    def _handle_api(
        self, request: HttpRequest, connection: ClientConnection, notes: RequestNotes
    ) -> InFlight | None:
        path = request.path
        self._check_head(request.head)
        if _is_models(path):
            body = self._models(path)
            connection.respond(200, [JSON, *self._identity(request.headers)], body)
            return None
        self._check_room()
        replica, model = self._holder(path)
        tenant = notes.tenant or ""
        caller = tenant or connection.client
        origin = Origin(self._new_id(), tenant, replica, model, self._holder_of, caller)
        if is_large(request):
            return self._read_large(request, connection, origin)
        return self._host.begin(read_call(request, origin), connection)

    def _read_large(
        self, request: HttpRequest, connection: ClientConnection, origin: Origin
    ) -> Reading:
        reading = Reading()

        async def read() -> None:
            self._readings += 1
            try:
                call = await read_large_call(request, origin)
                reading.exchange = self._host.begin(call, connection)
            except BadRequest as error:
                self._refuse(request, connection, error)
            except Exception:  # noqa: BLE001 - a client must not wait for a task that is gone
                _log.exception("a large request could not be handled")
                connection.fail(request)
            finally:
                self._readings -= 1
                self._host.settle()

        reading.task = self._host.spawn(read())
        return reading

    def _holder(self, path: bytes) -> tuple[str, str]:
        """Return the replica and model that hold the stored response a path is about."""
        named = stored_response_id(path)
        if not named:
            return "", ""
        holder = self._host.responses.holder_of(named)
        if holder is None:
            raise BadRequest(
                f"Response '{named[:64]}' is not known here: it was not made through this gateway"
                " process, or is forgotten. Ask the engine that made it.",
                status=404,
                code="response_not_found",
            )
        return holder

    def _holder_of(self, response_id: str) -> tuple[str, str]:
        return self._host.responses.holder_of(response_id) or ("", "")

    def _models(self, path: bytes) -> bytes:
        fleet, created_s = self._host.fleet, self._host.created_s
        name = unquote(path[len(b"/v1/models/") :].decode("ascii", "replace"))
        if not name:
            return render_models(fleet, created_s)
        body = render_model(fleet, created_s, name)
        if body is None:
            raise BadRequest(
                f"The model '{name[:128]}' does not exist; /v1/models lists those that do.",
                status=404,
                code="model_not_found",
                param="model",
            )
        return body

    def _identity(self, headers: list[Header]) -> list[Header]:
        """The ids of an answer that no exchange gives."""
        request_id = self._new_id()
        return [
            (b"x-request-id", (client_id(headers) or request_id).encode()),
            (b"x-headrace-request-id", request_id.encode()),
        ]

    def _new_id(self) -> str:
        self._requests += 1
        return self._id_prefix + str(self._requests)

    def _refuse(
        self, request: HttpRequest, connection: ClientConnection, error: BadRequest
    ) -> None:
        """Answer with an error before the core was asked."""
        if self._host.tracer is not None and is_engines(request.path):
            # All else is answered without a key: strangers' spans would fill the receiver.
            self._host.tracer.begin(request).end(error.status)
        headers = [JSON, *self._identity(request.headers), *_advice(error.status, error.allow)]
        self._host.telemetry.reject(error.code or f"http_{error.status}")
        body = error_body(
            error.status, error.message, path=request.path, code=error.code, param=error.param
        )
        connection.respond(error.status, headers, body)


def _advice(status: int, allow: bytes) -> list[Header]:
    """What the client of an error may do about it; `allow` as in `Refusal`."""
    if allow:
        return [(b"allow", allow)]
    if status == 401:
        return [(b"www-authenticate", b'Bearer realm="headrace"')]
    if status in {429, 503}:
        return [(b"retry-after", b"1")]
    return []


def _check_path(path: bytes) -> None:
    """Raise `BadRequest` for a path that an engine might read as another one than we do."""
    plain = path.rstrip(b"/")
    if path != plain and endpoint_of(plain) is not Endpoint.OTHER:
        raise BadRequest(f"Write {_shown(plain)} without a slash at its end.", status=404)
    if b"%2f" in path.lower() or b"%5c" in path.lower():
        raise BadRequest("The path holds an encoded slash; write it out.", code="bad_target")


def _is_models(path: bytes) -> bool:
    """Whether a path asks for the models that there are, or for one."""
    return path == b"/v1/models" or path.startswith(b"/v1/models/")


def _check_read(head: RequestHead, shown: bytes) -> None:
    """Raise `BadRequest` for a method that does not read; `shown` is what is read."""
    if head.method not in {b"GET", b"HEAD"}:
        message = f"{shown.decode()} is read with GET."
        raise BadRequest(message, status=405, allow=b"GET, HEAD")


def _check_method(head: RequestHead) -> None:
    """Raise `BadRequest` for a method that an endpoint does not have."""
    path = head.path
    known = path in UNVERSIONED or endpoint_of(path) is not Endpoint.OTHER
    allowed = _POST if known else _UPSTREAM_METHODS
    if head.method not in allowed:
        shown = f"{_shown(head.method)} is not a method of {_shown(path)}"
        names = b", ".join(sorted(allowed))
        raise BadRequest(f"{shown}; use {names.decode()}.", status=405, allow=names)


def _shown(value: bytes) -> str:
    """What a client sent, fit for a message."""
    return ascii(value[:128].decode("latin-1"))[1:-1]
