"""One streamed question to an OpenAI-compatible server, timed token by token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from headrace.core.model import Endpoint, Usage
from headrace.core.one_line import error_said
from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.heads import Header, find, render
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.sink import InParts
from headrace.engines.registry import dialect
from headrace.engines.sse import SseSplitter, event_data

_PATHS = {Endpoint.CHAT: b"/v1/chat/completions", Endpoint.COMPLETIONS: b"/v1/completions"}
_MAX_ERROR_BYTES = 64 * 1024


class AskError(Exception):
    """No whole answer came; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer with its timing, in seconds as the client saw it.

    `tpot_s` is None when the answer is one token long.
    """

    text: str
    usage: Usage
    ttft_s: float
    tpot_s: float | None
    headers: tuple[Header, ...]

    def header(self, name: bytes) -> str:
        """A field of the answer's head, empty if it is not there."""
        return (find(list(self.headers), name) or b"").decode("latin-1")


async def ask(
    url: str,
    endpoint: Endpoint,
    body: dict[str, Any],
    *,
    timeout_s: float,
    on_text: Callable[[str], None] = lambda _text: None,
) -> Answer:
    """Stream an answer; `body` is the request without its stream options. Raises AskError."""
    wanted = {**body, "stream": True, "stream_options": {"include_usage": True}}
    content = msgspec.json.encode(wanted)
    address = Address.parse(url)
    fields: list[Header] = [
        (b"host", address.host_header),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
    ]
    payload = render(b"POST %b HTTP/1.1\r\n" % _PATHS[endpoint], fields) + content
    pool = UpstreamPool(max_idle=0, idle_s=0.0)
    sink = _Listener(endpoint, on_text)
    call = pool.open(address, [payload], sink)
    try:
        async with asyncio.timeout(timeout_s):
            return await sink.answer
    except TimeoutError:
        raise AskError(f"no whole answer within {timeout_s:g} s") from None
    finally:
        call.cancel()


class _Listener(InParts):
    """An `AnswerSink` that notes when tokens come."""

    def __init__(self, endpoint: Endpoint, on_text: Callable[[str], None]) -> None:
        self._clock = time.perf_counter  # the loop of uvloop counts whole milliseconds
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._on_text = on_text
        self._asked_s = self._clock()
        self._splitter = SseSplitter()
        self._reader = dialect("openai").stream_reader(endpoint)
        self._status = 0
        self._headers: list[Header] = []
        self._refusal = bytearray()
        self._text: list[str] = []
        self._first_s = 0.0
        self._last_s = 0.0

    def answer_head(self, head: AnswerHead) -> None:
        self._status, self._headers = head.status, head.headers

    def answer_chunk(self, chunk: bytes, start: int) -> None:
        self.answer_body(chunk[start:-2])

    def answer_body(self, data: bytes) -> None:
        if self._status != 200:
            self._refusal += data[: _MAX_ERROR_BYTES - len(self._refusal)]
            return
        for event in self._splitter.feed(data):
            self._hear(event)

    def answer_flush(self) -> None:
        """Nothing is written on."""

    def answer_complete(self, framed: bool) -> None:  # noqa: ARG002 - the interface
        if self._status != 200:
            self._fail(f"HTTP {self._status}: {error_said(bytes(self._refusal))}")
        elif self._reader.usage is None or not self._first_s:
            self._fail("the stream ended without a token or without its usage")
        elif not self.answer.done():
            self.answer.set_result(self._whole(self._reader.usage))

    def answer_failed(self, reason: str) -> None:
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(AskError(reason))

    def _hear(self, event: bytes) -> None:
        before = self._reader.content_chunks
        self._reader.feed(event)
        if self._reader.error:
            self._fail(error_said(event_data(event)))
        if self._reader.content_chunks == before:
            return
        self._last_s = self._clock()
        self._first_s = self._first_s or self._last_s
        text = _text(event_data(event))
        self._text.append(text)
        self._on_text(text)

    def _whole(self, usage: Usage) -> Answer:
        steps = usage.output_tokens - 1
        tpot_s = (self._last_s - self._first_s) / steps if steps > 0 else None
        return Answer(
            "".join(self._text), usage, self._first_s - self._asked_s, tpot_s, tuple(self._headers)
        )


def _text(data: bytes) -> str:
    """The text of a content event, chat or completion."""
    choice = msgspec.json.decode(data)["choices"][0]
    delta = choice.get("delta", choice)
    return delta.get("content") or delta.get("text") or ""
