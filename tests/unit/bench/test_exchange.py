"""Which reads pass as they came: those that are one chunk with one event like the one before."""

from typing import Any

import pytest

from headrace.bench.exchange import Exchange
from headrace.bench.record import Record
from headrace.bench.settings import BenchSettings
from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamCall, UpstreamPool
from headrace.edges.http.ports import AnswerHead


class Host:
    """Counts."""

    tokens_out = 0

    def ended(self, exchange: Exchange) -> None:
        """Not of interest."""

    def first_token(self, exchange: Exchange) -> None:
        """Not of interest."""


def event(text: str, more: str = "") -> bytes:
    return b'data: {"id":"1","choices":[{"delta":{"content":"%b"}}]%b}\n\n' % (
        text.encode(), more.encode()
    )  # fmt: skip


def chunk(content: bytes, form: bytes = b"%x") -> bytes:
    return (form + b"\r\n%b\r\n") % (len(content), content)


def begun(first: bytes, **settings: Any) -> Exchange:
    """An exchange that has read its first token from this chunk."""
    given = BenchSettings("http://x", **settings)
    exchange = Exchange(Host(), given, Record(0), origin_s=0.0, leave_after=0)
    pool = UpstreamPool(max_idle=1, idle_s=60.0)
    exchange.call = UpstreamCall(pool, Address.parse("http://127.0.0.1:1"), [b"x"], exchange)
    exchange.answer_head(AnswerHead(200, [(b"content-type", b"text/event-stream")]))
    exchange.answer_chunk(first, first.index(b"\r\n") + 2)
    return exchange


USUAL = chunk(event("water"))
LONG = "m" * 300


@pytest.mark.parametrize(
    ("read", "passes"),
    [
        (chunk(event(" mill")), True),
        (chunk(event(LONG)), True),  # its size has a digit more
        (chunk(event("")), False),
        (chunk(event('a\\"b')), False),
        (chunk(event("a", ',"usage":{"completion_tokens":3}')), False),
        (chunk(event("a")) + chunk(event("b")), False),
        (chunk(event("a"))[:-1], False),
        (chunk(event("a") + event("b")), False),
        (b"0" + chunk(event("a")), False),
        (b"3f\r\n" + chunk(event("a")).partition(b"\r\n")[2], False),  # another size than it has
        (b"0\r\n\r\n", False),
        (b"", False),
    ],
)
def test_only_one_usual_event_alone_in_its_read_passes(read: bytes, passes: bool):
    exchange = begun(USUAL)
    assert exchange.passes(read) == passes


def test_sizes_in_capitals_pass_once_they_were_seen():
    small, large = chunk(event("water"), b"%X"), chunk(event("m" * 117), b"%X")
    assert not small[:2].isdigit()
    assert not large[:2].isdigit()
    assert begun(small).passes(large)
    assert not begun(chunk(event("water"))).passes(large)


def test_an_answer_over_its_limit_does_not_pass():
    exchange = begun(USUAL, max_answer_bytes=4 * len(USUAL))
    assert [exchange.passes(chunk(event("mills"))) for _ in range(5)] == [True] * 4 + [False]
