"""However a stream is cut on the wire, the load generator reads the same tokens from it."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.bench.record import Record
from headrace.bench.sending.exchange import Exchange
from headrace.bench.sending.forms import Forms
from headrace.bench.settings import BenchSettings
from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamCall, UpstreamPool
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.upstream_connection import UpstreamConnection
from tests.unit.bench.exchanges import Host

HEAD = AnswerHead(200, [(b"content-type", b"text/event-stream")])
TEXTS = st.sampled_from(
    [
        "a",
        " water",
        "",
        '"',
        '\\"',
        "\n\n",
        '"content":"x"',
        '"},"usage":{',
        "data: [DONE]",
        "é\0",
        "\\",
    ]
)


def chunk_of(delta: dict[str, object], **more: object) -> dict[str, object]:
    return {"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def usage(tokens: int) -> dict[str, object]:
    return {"prompt_tokens": 5, "completion_tokens": tokens}


EVENTS = st.one_of(
    TEXTS.map(lambda text: chunk_of({"content": text})),
    TEXTS.map(lambda text: chunk_of({"content": text}, usage=None)),
    TEXTS.map(lambda text: chunk_of({"content": text}, usage=usage(3))),
    TEXTS.map(lambda text: chunk_of({"content": "", "reasoning_content": text})),
    TEXTS.map(lambda text: {"id": "1", "choices": [{"index": 0, "text": text}]}),
    st.just(chunk_of({"role": "assistant", "content": ""})),
    st.just(chunk_of({"tool_calls": [{"function": {"arguments": "{"}}]})),
    st.integers(1, 9).map(lambda tokens: {"choices": [], "usage": usage(tokens)}),
)


class Wire:
    """A transport that swallows everything."""

    closed = False

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def is_closing(self) -> bool:
        return self.closed

    def resume_reading(self) -> None:
        """It never pauses."""

    def abort(self) -> None:
        self.closed = True


def begun() -> tuple[Host, Exchange]:
    host = Host()
    exchange = Exchange(host, BenchSettings("http://x"), Record(0), leave_after=0)
    exchange.answer_head(HEAD)
    return host, exchange


def connected(forms: Forms) -> tuple[Host, Exchange, UpstreamConnection]:
    """The same, behind a connection: only there do reads pass as they came."""
    host = Host()
    host.forms = forms
    pool = UpstreamPool(max_idle=1, idle_s=60.0)
    address = Address.parse("http://127.0.0.1:1")
    connection = UpstreamConnection(pool, address)
    connection.connection_made(Wire())  # type: ignore[arg-type]
    exchange = Exchange(host, BenchSettings("http://x"), Record(0), leave_after=0)
    call = UpstreamCall(pool, address, [b"x"], exchange)
    call.connection = connection
    exchange.call = call
    connection.start(call)
    connection.data_received(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return host, exchange, connection


def read(record: Record) -> tuple[object, ...]:
    return (
        record.error,
        record.chunks,
        record.output_tokens,
        record.input_tokens,
        len(record.itl_s),
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=12), st.data())
def test_cuts_make_no_difference(events: list[dict[str, object]], data: st.DataObject):
    # What follows a text of the usual shape may have the same beginning and end, and no text.
    events += [chunk_of({"content": "a"}), chunk_of({"content": "", "reasoning_content": ""})]
    encoded = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events]
    encoded.append(b"data: [DONE]\n\n")
    together = b"".join(encoded)

    form = data.draw(st.sampled_from([b"%x\r\n%b\r\n", b"%X\r\n%b\r\n", b"0%x\r\n%b\r\n"]))
    forms, seen = Forms(), list[tuple[Host, Record]]()
    for _ in range(2):  # the second time with what was learnt in the first
        host, exchange, connection = connected(forms)
        for event in encoded:  # each as a chunk of its own, so that most of them pass
            connection.data_received(form % (len(event), event))
        connection.data_received(b"0\r\n\r\n")
        seen.append((host, exchange.record))

    _, cut = begun()
    at = sorted(data.draw(st.lists(st.integers(0, len(together)), max_size=8)))
    for first, last in zip([0, *at], [*at, len(together)], strict=True):
        if data.draw(st.booleans()) and last > first:
            framed = b"%x\r\n%b\r\n" % (last - first, together[first:last])
            cut.answer_chunk(framed, framed.index(b"\r\n") + 2)
        else:
            cut.answer_body(together[first:last])
            cut.answer_flush()
    cut.answer_complete(framed=True)

    contents = sum(b'"choices":[{' in event and _has_text(event) for event in encoded)
    for host, alone in seen:
        assert read(alone) == read(cut.record)
        assert alone.chunks == contents == host.tokens_out
        assert host.ends == 1


def _has_text(event: bytes) -> bool:
    choice = msgspec.json.decode(event[6:])["choices"][0]
    delta = choice.get("delta", {})
    parts = (choice.get("text"), delta.get("content"), delta.get("reasoning_content"))
    return any(parts) or "tool_calls" in delta


PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"content-type: text/event-stream\r\n",
            b"content-type: application/json\r\n",
            b"transfer-encoding: chunked\r\n",
            b"content-length: 30\r\n",
            b"\r\n",
            b"5\r\ndata:\r\n",
            b'2c\r\ndata: {"choices":[{"delta":{"content":"a"}}]}\n\n\r\n',
            b"data: [DONE]\n\n",
            b'data: {"error":{"message":"no"}}\n\n',
            b"0\r\n\r\n",
            b"ffffffffffffffff\r\n",
        ]
    ),
)


STATUS = st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 429 No\r\n", b""])
KINDS = st.sampled_from([b"content-type: text/event-stream\r\n", b"content-type: text/html\r\n"])
FRAMES = st.sampled_from([b"transfer-encoding: chunked\r\n\r\n", b"\r\n"])
HEADS = st.tuples(STATUS, KINDS, FRAMES).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(HEADS, st.lists(PIECES, max_size=12), st.booleans(), st.sampled_from([0, 1]))
def test_whatever_a_server_sends_is_an_end_and_no_exception(
    head: bytes, pieces: list[bytes], stream: bool, leave_after: int
):
    host = Host()
    pool = UpstreamPool(max_idle=1, idle_s=60.0)
    address = Address.parse("http://127.0.0.1:1")
    connection = UpstreamConnection(pool, address)
    connection.connection_made(Wire())  # type: ignore[arg-type]
    exchange = Exchange(
        host,
        BenchSettings("http://x", stream=stream),
        Record(0),
        leave_after=leave_after,
    )
    # It is not taken from the pool: a call on a used connection would be sent once more.
    call = UpstreamCall(pool, address, [b"x"], exchange)
    call.connection = connection
    exchange.call = call
    connection.start(call)
    for piece in (head, *pieces):
        if piece:
            connection.data_received(piece)
    connection.connection_lost(None)
    assert (exchange.over, host.ends) == (True, 1)
    assert exchange.record.error_detail.isprintable()
    assert exchange.record.ok == (exchange.record.error == "")
