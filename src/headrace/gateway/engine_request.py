"""How a client's request is written for an engine, and what says who answered it."""

from __future__ import annotations

from headrace.core.model import Request
from headrace.edges.http.address import Address
from headrace.edges.http.heads import length_line, render_fields
from headrace.gateway.call import Call
from headrace.gateway.notes import RequestNotes
from headrace.gateway.tracing import AttemptTrace
from headrace.gateway.upstream import Upstream


def payload_of(
    call: Call,
    attempt: int,
    body: list[bytes],
    upstream: Upstream,
    address: Address,
    *,
    trace: AttemptTrace | None,
) -> list[bytes]:
    """The bytes of one attempt, head and body, in as many pieces as need no copy."""
    head = call.http.head
    # The id is unique per attempt: engines use it as the id of the request.
    own = call.request.id.encode()
    id_line = b"\r\nx-request-id: %b-%b\r\n" % (own, str(attempt).encode())
    notes: RequestNotes = head.notes
    if trace is None:
        begin = notes.forwarded
    else:
        line = b"%b %b HTTP/1.1\r\n" % (head.method, head.target)
        begin = line + render_fields(trace.continued(notes.passing))
    if address.base:
        begin = begin.replace(b" ", b" " + address.base, 1)
    if len(body) == 1:
        # One piece is joined to its head, for one system call; many are large, not copied.
        whole = body[0]
        host, length = address.host_header, length_line(len(whole))
        return [b"".join((begin, b"host: ", host, id_line, upstream.fields, length, whole))]
    ours = b"".join((b"host: ", address.host_header, id_line, upstream.fields))
    if body or head.method == b"POST":
        ours += b"content-length: %d\r\n" % sum(map(len, body))
    return [b"%b%b\r\n" % (begin, ours), *body]


def identity_of(request: Request, replica: str) -> bytes:
    """The answer's fields, rendered, that name the request and who answered it."""
    own = request.id.encode()
    theirs = request.client_id.encode() or own
    ids = b"x-request-id: %b\r\nx-headrace-request-id: %b\r\n" % (theirs, own)
    return ids + b"x-headrace-replica: %b\r\n" % replica.encode() if replica else ids
