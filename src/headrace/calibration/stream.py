"""One streamed answer, timed while it comes and read when it is over.

Reading an event costs more than noting when it came, and what one stream costs here would be
counted as another one's step. So the bytes are kept until the answers measured together are whole.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from headrace.calibration.replica import CalibrationError, Replica
from headrace.core.model import Endpoint, Usage
from headrace.core.one_line import error_said, in_a_line
from headrace.edges.http.address import Address
from headrace.edges.http.client import UpstreamPool
from headrace.edges.http.heads import Header, find, render
from headrace.edges.http.ports import AnswerHead
from headrace.edges.http.sink import InParts
from headrace.engines.sse import SseSplitter, event_data

_PATHS = {Endpoint.CHAT: b"/v1/chat/completions", Endpoint.COMPLETIONS: b"/v1/completions"}
_CONNECTIONS = 256
_IDLE_S = 4.0
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_clock = time.perf_counter  # the loop of uvloop counts whole milliseconds


class StreamError(Exception):
    """No whole answer came. `status` is the HTTP status if it was not 200, else 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """When an answer's content came, in seconds of `perf_counter`."""

    asked_s: float
    content_s: tuple[float, ...]
    usage: Usage

    @property
    def ttft_s(self) -> float:
        """Seconds from the request to the first content."""
        return self.content_s[0] - self.asked_s

    @property
    def uncached_tokens(self) -> int:
        """Prompt tokens that were computed, as the engine counts."""
        return self.usage.input_tokens - self.usage.cached_tokens

    @property
    def tokens_per_event(self) -> float:
        """Above 1 where an engine sends several tokens in one event."""
        return self.usage.output_tokens / len(self.content_s)


class Asker(Protocol):
    """How an engine is asked. All but `clock` raise StreamError, and CalibrationError where there
    is no sense in going on.
    """

    def clock(self) -> float:
        """Seconds of the time that answers are measured in."""
        ...

    async def settle(self, prompt: str) -> TimedAnswer:
        """Find out how this engine is asked, and warm it up."""
        ...

    async def ask(self, prompt: str, output_tokens: int) -> TimedAnswer:
        """One answer of so many tokens."""
        ...

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        """Answers side by side, of so many tokens each."""
        ...

    async def beside(
        self, first: str, first_tokens: int, prompts: list[str], output_tokens: int, at_once: int
    ) -> tuple[TimedAnswer, list[TimedAnswer]]:
        """A stream, and while it decodes answers to all prompts, so many at once."""
        ...


class StreamClient:
    """Streams answers from one replica over connections that are kept, where it keeps them."""

    def __init__(self, replica: Replica, *, timeout_s: float) -> None:
        self._replica = replica
        self._address = Address.parse(replica.url)
        self._timeout_s = timeout_s
        keeps = not replica.dialect.closes_after_stream
        self._pool = UpstreamPool(max_idle=_CONNECTIONS if keeps else 0, idle_s=_IDLE_S)
        self.endpoint = Endpoint.COMPLETIONS
        self.ignores_eos = True
        self._served_by: dict[str, None] = {}

    def clock(self) -> float:
        """See `Asker.clock`."""
        return _clock()

    async def settle(self, prompt: str) -> TimedAnswer:
        """Find out how this engine is asked, and warm it up.

        Completions say exactly what the prompt is; where there are none, chat has to do.
        `ignore_eos` keeps answers from ending early; what does not know it is asked without.

        Raises:
            StreamError: it refuses all of them.
        """
        refused = StreamError("")
        for endpoint in (Endpoint.COMPLETIONS, Endpoint.CHAT):
            for ignores_eos in (True, False):
                self.endpoint, self.ignores_eos = endpoint, ignores_eos
                try:
                    return await self.ask(prompt, 8)
                except StreamError as error:
                    if error.status not in {400, 404, 405, 422, 501}:
                        raise
                    refused = error
        raise refused

    async def ask(self, prompt: str, output_tokens: int) -> TimedAnswer:
        """One answer of so many tokens. Raises StreamError."""
        sink = self._send(prompt, output_tokens)
        await self._whole([sink])
        return self._read([sink])[0]

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        """Answers side by side. Raises StreamError if one of them fails."""
        sinks = [self._send(prompt, output_tokens) for prompt in prompts]
        await self._whole(sinks)
        return self._read(sinks)

    async def beside(
        self, first: str, first_tokens: int, prompts: list[str], output_tokens: int, at_once: int
    ) -> tuple[TimedAnswer, list[TimedAnswer]]:
        """A stream, and while it decodes answers to all prompts, so many at once.

        Raises:
            StreamError: one of them fails.
        """
        begun = self._send(first, first_tokens)
        sinks: list[_Sink] = []
        waiting = iter(prompts)

        async def one_after_the_other() -> None:
            for prompt in waiting:
                sinks.append(self._send(prompt, output_tokens))
                await sinks[-1].whole

        async def all_of_them() -> None:
            await begun.begun.wait()  # none is before it in the engine's queue
            await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))

        others = asyncio.create_task(all_of_them())
        try:
            async with asyncio.timeout(self._timeout_s):
                await others
                await begun.whole
        except TimeoutError:
            raise StreamError(f"no whole answer within {self._timeout_s:g} s") from None
        finally:
            others.cancel()
            for sink in (begun, *sinks):
                sink.drop()
        clock, *answers = self._read([begun, *sinks])
        return clock, answers

    def close(self) -> None:
        """Close what is kept."""
        self._pool.close()

    def _send(self, prompt: str, output_tokens: int) -> _Sink:
        content = msgspec.json.encode(self._body(prompt, output_tokens))
        fields: list[Header] = [
            (b"host", self._address.host_header),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(content)),
            *self._replica.headers,
        ]
        payload = render(b"POST %b HTTP/1.1\r\n" % _PATHS[self.endpoint], fields) + content
        sink = _Sink(self._replica, self.endpoint)
        sink.call = self._pool.open(self._address, [payload], sink)
        sink.call.reusable = not self._replica.dialect.closes_after_stream
        return sink

    def _body(self, prompt: str, output_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._replica.model,
            "max_tokens": output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.endpoint is Endpoint.CHAT:
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self.ignores_eos:
            body["ignore_eos"] = True
        return body

    async def _whole(self, sinks: list[_Sink]) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                for sink in sinks:
                    await sink.whole
        except TimeoutError:
            raise StreamError(f"no whole answer within {self._timeout_s:g} s") from None
        finally:
            for sink in sinks:
                sink.drop()

    def _read(self, sinks: list[_Sink]) -> list[TimedAnswer]:
        """Answers that are whole. Raises CalibrationError if several replicas gave them: neither
        the order of experiments nor their batches would mean anything.
        """
        answers = [sink.read() for sink in sinks]
        self._served_by |= {sink.replica: None for sink in sinks if sink.replica}
        if len(self._served_by) > 1:
            raise CalibrationError(
                f"{self._replica.url} is a gateway before several replicas "
                f"({in_a_line(', '.join(self._served_by))}): measure one of them"
            )
        return answers


class _Sink(InParts):
    """An `AnswerSink` that keeps what comes with the time it came."""

    def __init__(self, replica: Replica, endpoint: Endpoint) -> None:
        self.whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begun = asyncio.Event()
        """Something came, or nothing will."""
        self.call: Any = None
        self.replica = ""
        """Which one answered, where a gateway of ours tells."""
        self._reader = replica.dialect.stream_reader(endpoint)
        self._status = 0
        self._pieces: list[tuple[float, bytes]] = []
        self._bytes = 0
        self._asked_s = _clock()

    def drop(self) -> None:
        self.call.cancel()
        if self.whole.done() and not self.whole.cancelled():
            self.whole.exception()  # looked at: several may have failed

    def answer_head(self, head: AnswerHead) -> None:
        self._status = head.status
        self.replica = (find(head.headers, b"x-headrace-replica") or b"").decode("latin-1")

    def answer_chunk(self, chunk: bytes, start: int) -> None:
        self.answer_body(chunk[start:-2])

    def answer_body(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > _MAX_ANSWER_BYTES:
            self.answer_failed("the answer does not end")
        else:
            self._pieces.append((_clock(), data))
            self.begun.set()

    def answer_flush(self) -> None:
        """Nothing is written on."""

    def answer_complete(self, framed: bool) -> None:  # noqa: ARG002 - the interface
        self.begun.set()
        if not self.whole.done():
            self.whole.set_result(None)

    def answer_failed(self, reason: str) -> None:
        self.begun.set()
        if not self.whole.done():
            self.whole.set_exception(StreamError(reason))

    def read(self) -> TimedAnswer:
        """Make sense of a whole answer. Raises StreamError."""
        body = b"".join(data for _, data in self._pieces)
        if self._status != 200:
            raise StreamError(f"HTTP {self._status}: {error_said(body)}", self._status)
        splitter, reader = SseSplitter(), self._reader
        content_s: list[float] = []
        for at_s, data in self._pieces:
            for event in splitter.feed(data):
                before = reader.content_chunks
                reader.feed(event)
                if reader.error:
                    raise StreamError(error_said(event_data(event)))
                if reader.content_chunks > before:
                    content_s.append(at_s)
        if reader.usage is None or not content_s:
            raise StreamError("the stream ended without a token or without its usage")
        return TimedAnswer(self._asked_s, tuple(content_s), reader.usage)
