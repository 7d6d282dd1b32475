"""Which request targets are taken: those that no two servers read differently."""

import pytest

from headrace.edges.http.connection import ClientConnection
from headrace.edges.http.server import HttpServer
from headrace.edges.http.strictness import fault_of
from tests.property.test_http_requests import LIMITS, Recorder, Wire

HOST = [(b"host", b"a")]


def is_taken(target: bytes) -> bool:
    fault = fault_of("1.1", target, HOST, LIMITS)
    assert fault is None or (fault.status, fault.code) == (400, "bad_target")
    return fault is None


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/v1/models/org/name:latest@2,3=(a)*!$&'+~",
        b"/v1/models/org%2Fname%20two%C3%A9",
        b"/v1/x?",
        b'/v1/x?a=b&include[]=c|d;e&f=/?%zz\\{}"^`<>',
    ],
)
def test_what_rfc_3986_allows_is_taken_and_what_browsers_send_in_queries(target):
    assert is_taken(target)


@pytest.mark.parametrize("byte", sorted({*range(0x21), 0x7F, 0x80, 0xC3, 0xFF, *b'"#;<>[\\]^`{|}'}))
def test_no_path_holds_what_servers_read_differently(byte):
    for target in (b"/v1/load_lora_adapter%b", b"/v1/load_lora_adapter%bx", b"/v1%b/x"):
        assert not is_taken(target % bytes((byte,)))


@pytest.mark.parametrize("byte", sorted({*range(0x21), 0x7F, 0x80, 0xFF, *b"#"}))
def test_no_query_holds_what_ends_it(byte):
    assert not is_taken(b"/v1/load_lora_adapter?%b" % bytes((byte,)))


@pytest.mark.parametrize("end", [b"%00", b"%0a", b"%0D", b"%1f", b"%7F", b"%", b"%4", b"%zz"])
def test_no_path_holds_encoded_controls_or_broken_encodings(end):
    # Starlette's routes end in "$", which stands before a last line end as well.
    assert not is_taken(b"/v1/load_lora_adapter" + end)


def test_a_head_with_a_fragment_is_not_remembered():
    server = HttpServer(recorder := Recorder(), LIMITS)
    request = b"POST /v1/x#y HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    for _ in range(2):
        connection, wire = ClientConnection(server), Wire()
        connection.connection_made(wire)
        connection.data_received(request)
        assert wire.written.startswith(b"HTTP/1.1 400")
    assert not recorder.seen
    assert not len(server.known_heads)
