"""Exchanges that are handed reads by a test, as a connection would."""

from typing import Any

from headrace.bench.record import Record
from headrace.bench.sending.exchange import Exchange
from headrace.bench.sending.forms import Forms
from headrace.bench.settings import BenchSettings
from headrace.bench.timing.arrival_log import ArrivalLog
from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamCall, UpstreamPool
from headrace.edges.http.ports import AnswerHead


class Host:
    """Counts."""

    def __init__(self) -> None:
        self.tokens_out = 0
        self.ends = 0
        self.origin_s = 0.0
        self.forms = Forms()
        self.log = ArrivalLog(may_hold=False, fail=self.fail)

    def fail(self, error: BaseException) -> None:
        """Nothing of ours is to fail."""
        raise error

    def ended(self, exchange: Exchange) -> None:
        """One more."""
        self.ends += 1

    def first_token(self, exchange: Exchange) -> None:
        """Not of interest."""


def event(text: str, more: str = "", stream_id: str = "1") -> bytes:
    """An event with a text."""
    return b'data: {"id":"%b","choices":[{"delta":{"content":"%b"}}]%b}\n\n' % (
        stream_id.encode(), text.encode(), more.encode()
    )  # fmt: skip


def opening(stream_id: str = "1", created: int = 1) -> bytes:
    """The event that streams begin with."""
    return b'data: {"id":"%b","created":%d,"choices":[{"delta":{"role":"assistant"}}]}\n\n' % (
        stream_id.encode(), created
    )  # fmt: skip


def chunk(content: bytes, form: bytes = b"%x") -> bytes:
    """A read that is one chunk."""
    return (form + b"\r\n%b\r\n") % (len(content), content)


def of(host: Host, max_tokens: int = 0, **settings: Any) -> Exchange:
    """An exchange whose answer's head has come."""
    given = BenchSettings("http://x", **settings)
    exchange = Exchange(host, given, Record(0), leave_after=0, max_tokens=max_tokens)
    pool = UpstreamPool(max_idle=1, idle_s=60.0)
    exchange.call = UpstreamCall(pool, Address.parse("http://127.0.0.1:1"), [b"x"], exchange)
    exchange.answer_head(AnswerHead(200, [(b"content-type", b"text/event-stream")]))
    return exchange


def read(exchange: Exchange, data: bytes) -> bool:
    """Hand over a read that is one chunk; whether it passed as it came."""
    if exchange.passes(data):
        return True
    exchange.answer_chunk(data, data.index(b"\r\n") + 2)
    return False
