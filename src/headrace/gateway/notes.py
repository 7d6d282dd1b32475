"""What the gateway makes of a head, once for all messages that have the same one."""

from __future__ import annotations

import re
from typing import Final

from headrace.core.model import Endpoint
from headrace.edges.http.heads import (
    BODILESS,
    NOT_RETURNED,
    Header,
    find,
    passing,
    render_fields,
    to_engine,
)
from headrace.edges.http.ports import AnswerHead, RequestHead
from headrace.gateway.endpoints import endpoint_of
from headrace.gateway.keys import KeyRing
from headrace.gateway.promise import NOTHING_ASKED, BadPromise, promise_of

JSON: Final[Header] = (b"content-type", b"application/json")
_CLIENT_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_EVENTS: Final = b"text/event-stream"
_MOST_DIGITS: Final = 9
"""Of Retry-After in seconds; a date is not read."""


class RequestNotes:
    """Of a client's request.

    `client_id` is the caller's own x-request-id if it is fit to be sent back, else "". `tenant` is
    the name of the caller's key in `keys`, "" where no keys are asked for and None for a stranger.
    `forwarded` is the request line and the fields that pass, rendered, and `passing` these fields.
    `is_call` says that this is a POST to an endpoint we know, with a body that is not compressed.
    `promise` is what it asks to be promised, unless that is a `bad_promise`; `asks` tells whether
    it asks for anything.
    """

    __slots__ = (
        "_forwarded",
        "_headers",
        "_line",
        "asks",
        "bad_promise",
        "client_id",
        "endpoint",
        "is_call",
        "keys",
        "promise",
        "tenant",
    )

    def __init__(self, head: RequestHead, keys: KeyRing | None) -> None:
        # Not the head itself: it holds these notes, and a cycle waits for the collector.
        self._headers = head.headers
        self._line = b"%b %b HTTP/1.1\r\n" % (head.method, head.target)
        self._forwarded = b""
        self.endpoint = endpoint_of(head.path)
        self.client_id = client_id(head.headers)
        self.keys = keys
        self.tenant = tenant_of(head.headers, keys)
        self.is_call = (
            head.method == b"POST"
            and self.endpoint is not Endpoint.OTHER
            and find(head.headers, b"content-encoding") is None
        )
        self.promise = NOTHING_ASKED
        self.bad_promise: BadPromise | None = None
        try:
            self.promise = promise_of(head.headers)
        except BadPromise as error:
            self.bad_promise = error
        self.asks = self.bad_promise is not None or self.promise is not NOTHING_ASKED

    @property
    def passing(self) -> list[Header]:
        """The fields that go on to the engine."""
        return to_engine(self._headers)

    @property
    def forwarded(self) -> bytes:
        """The request line and the fields that go on to the engine, rendered."""
        if not self._forwarded:
            self._forwarded = self._line + render_fields(self.passing)
        return self._forwarded


class AnswerNotes:
    """Of an engine's answer.

    `fields` are those that pass to the client, rendered. `length` is what Content-Length says, None
    where it says nothing. `streams` tells whether server-sent events follow, `untyped` that nothing
    is said of what follows, `retry_after_s` how long to wait, where it says so in seconds.
    """

    __slots__ = ("fields", "length", "retry_after_s", "streams", "untyped")

    def __init__(self, head: AnswerHead) -> None:
        self.fields = render_fields(passing(head.headers, NOT_RETURNED))
        length = find(head.headers, b"content-length")
        self.length = int(length) if length and length.isdigit() else None
        kind = find(head.headers, b"content-type") or b""
        self.streams = kind.lower().startswith(_EVENTS)
        self.untyped = not kind and head.status not in BODILESS
        wait = find(head.headers, b"retry-after") if head.status >= 400 else None
        told = wait is not None and len(wait) <= _MOST_DIGITS and wait.isdigit()
        self.retry_after_s = float(wait) if wait is not None and told else None


OURS: Final = AnswerNotes(AnswerHead(0, [JSON]))
"""On the heads of answers that are not an engine's."""


def notes_of(head: RequestHead, keys: KeyRing | None) -> RequestNotes:
    """The notes on a head, with the caller's key judged by `keys`."""
    notes = head.notes
    if notes is None or notes.keys is not keys:
        notes = head.notes = RequestNotes(head, keys)
    return notes


def client_id(headers: list[Header]) -> str:
    """Return the caller's `x-request-id` if it is fit to be sent back, else ""."""
    value = find(headers, b"x-request-id")
    return value.decode("ascii") if value and _CLIENT_ID.fullmatch(value) else ""


def tenant_of(headers: list[Header], keys: KeyRing | None) -> str | None:
    """The name of the caller's key, "" where no keys are asked for, None if it is not known."""
    if keys is None:
        return ""
    value = find(headers, b"authorization") or find(headers, b"x-api-key")
    return keys.identify(value) if value else None
