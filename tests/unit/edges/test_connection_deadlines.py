"""What a client connection may take its time for: a head, a body, the next request."""

import time
from dataclasses import replace

import pytest

from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.server import HttpServer
from tests.property.test_http_requests import LIMITS, Recorder, Wire

HEAD_S, BODY_S, IDLE_S = 10.0, 1_000.0, 100_000.0
WHOLE = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
HALF_A_HEAD = WHOLE[:30]
HALF_A_BODY = WHOLE[:-1]


class Later(Recorder):
    """Answers when it is told to."""

    def handle(self, request, connection):
        self.seen.append((request, request.body))


def connected(handler):
    limits = replace(LIMITS, head_s=HEAD_S, body_s=BODY_S, idle_s=IDLE_S)
    connection = ClientConnection(HttpServer(handler, limits))
    connection.connection_made(Wire())
    return connection


def allowed_s(connection) -> float:
    """The span that the deadline was set with, to within the seconds that a test takes."""
    left_s = connection.deadline_s - time.monotonic()
    return next(span_s for span_s in (HEAD_S, BODY_S, IDLE_S) if left_s <= span_s)


@pytest.mark.parametrize(
    ("begun", "span_s"),
    [(b"", IDLE_S), (HALF_A_HEAD, HEAD_S), (HALF_A_BODY, BODY_S)],
)
@pytest.mark.parametrize("together", [True, False])
def test_what_was_begun_behind_another_request_is_bounded_once_that_is_answered(
    begun, span_s, together
):
    connection = connected(handler := Later())
    for data in [WHOLE + begun] if together else [WHOLE, begun]:
        if data:
            connection.data_received(data)
    assert connection.deadline_s == float("inf")
    assert len(handler.seen) == 1
    connection.respond(200, [], b"ok")
    assert allowed_s(connection) == span_s


@pytest.mark.parametrize(
    ("begun", "span_s"),
    [(b"", IDLE_S), (HALF_A_HEAD, HEAD_S), (HALF_A_BODY, BODY_S)],
)
def test_also_where_that_is_answered_at_once(begun, span_s):
    connection = connected(handler := Recorder())
    connection.data_received(WHOLE + begun)
    assert len(handler.seen) == 1
    assert allowed_s(connection) == span_s


def test_a_head_alone_is_bounded_from_its_first_byte():
    connection = connected(Recorder())
    assert allowed_s(connection) == IDLE_S
    connection.data_received(HALF_A_HEAD)
    assert allowed_s(connection) == HEAD_S
    connection.data_received(WHOLE[30:-1])
    assert allowed_s(connection) == BODY_S
    connection.data_received(WHOLE[-1:])
    assert allowed_s(connection) == IDLE_S
