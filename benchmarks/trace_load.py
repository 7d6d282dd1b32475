"""A trace as real requests: prompts whose shared text follows the trace's blocks, sent on time.

    intended time ─► connect, write ─► first content event (TTFT) ─► … ─► last one (TPOT) ─► usage

The loop is open: each request is sent when the trace says, whatever became of those before it, on a
connection of its own. TTFT counts from the intended time, so a generator that is late makes it
longer, not shorter; `lag_s` of each answer says how late it was.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from contextlib import contextmanager
from hashlib import shake_128
from typing import TYPE_CHECKING, cast

import httptools
import msgspec

from benchmarks.load import HOST
from headrace.emulator.prompt import BYTES_PER_TOKEN, MESSAGE_BYTES
from headrace.simulator.results import FAILED, Results
from headrace.traffic.trace import Trace, TraceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAD_S = 0.5
"""From the start of a run to the first request."""
DRAIN_S = 120.0
"""So long after the last arrival a run is given up; what is still open then is a failure."""

_QUOTES_BYTES = 2
"""The content is counted as it stands in JSON, quotes included."""
_LETTERS = bytes(b" abcdefghijklmnopqrstuvwxyz eatoin srhldcu"[byte % 42] for byte in range(256))


class Answer:
    """What came of one request. Times are those of `time.monotonic`, 0 for what did not happen."""

    __slots__ = (
        "cached_tokens",
        "end_s",
        "error",
        "first_s",
        "input_tokens",
        "intended_s",
        "last_s",
        "output_tokens",
        "sent_s",
    )

    def __init__(self, intended_s: float) -> None:
        self.intended_s = intended_s
        self.sent_s = 0.0
        self.first_s = 0.0
        """The first event with content."""
        self.last_s = 0.0
        self.end_s = 0.0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0
        self.error = ""
        """Why it failed; empty if it did not."""

    @property
    def lag_s(self) -> float:
        """How late it was sent."""
        return self.sent_s - self.intended_s


# ---------------------------------------------------------------- requests


def payload(request: TraceRequest, number: int, *, block_tokens: int, model: str) -> bytes:
    """A streaming chat request with as many tokens as the trace says, as the engines count them.

    The text of a block depends on its id only; what follows the last full block is new in each
    request. The template's bytes before the text are fewer than an engine's block has, so prompts
    share as many whole blocks of the engine as their trace says.
    """
    text_bytes = request.input_tokens * BYTES_PER_TOKEN - MESSAGE_BYTES - _QUOTES_BYTES
    block_bytes = block_tokens * BYTES_PER_TOKEN
    pieces = [_text(b"block %d" % block, block_bytes) for block in request.blocks]
    rest_bytes = max(0, text_bytes - block_bytes * len(pieces))
    text = b"".join((*pieces, _text(b"rest %d" % number, rest_bytes)))[: max(0, text_bytes)]
    body = (
        b'{"model":"%b","messages":[{"role":"user","content":"%b"}],"max_tokens":%d,'
        b'"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}}'
    ) % (model.encode(), text, request.output_tokens)
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )


def _text(name: bytes, size_bytes: int) -> bytes:
    """Letters and spaces, always the same ones for a name."""
    return shake_128(name).digest(size_bytes).translate(_LETTERS)


# ---------------------------------------------------------------- answers


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class _Stream(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self, request: bytes, answer: Answer, wanted_tokens: int) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._request = request
        self._answer = answer
        self._wanted_tokens = wanted_tokens
        self._parser = httptools.HttpResponseParser(self)
        self._rest = b""
        self._content_events = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derive from nothing
        self._transport.write(self._request)
        self._request = b""
        self._answer.sent_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.end(f"not HTTP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"the connection was closed: {exc or 'by the server'}")

    def end(self, error: str = "") -> None:
        """The answer is whole, or will not be."""
        if not self.ended.done():
            self._answer.end_s = time.monotonic()
            self._answer.error = error
            self.ended.set_result(None)
        if self._transport is not None:
            self._transport.abort()

    # ---- what the parser tells

    def on_body(self, body: bytes) -> None:
        *events, self._rest = (self._rest + body).split(b"\n\n")
        if self._parser.get_status_code() != 200:
            self._rest = body
            return
        for event in events:
            data = event.removeprefix(b"data: ")
            if data != b"[DONE]":
                self._take(_decode(data))

    def on_message_complete(self) -> None:
        status, answer = self._parser.get_status_code(), self._answer
        if status != 200:
            self.end(f"status {status}: {self._rest[:200].decode(errors='replace')}")
        elif not self._content_events == answer.output_tokens == self._wanted_tokens:
            counts = f"{self._content_events} events, {answer.output_tokens} in usage"
            self.end(f"{counts}, {self._wanted_tokens} were asked for")
        else:
            self.end()

    def _take(self, chunk: _Chunk) -> None:
        answer = self._answer
        if chunk.choices and chunk.choices[0].delta.content:
            answer.last_s = time.monotonic()
            if not answer.first_s:
                answer.first_s = answer.last_s
            self._content_events += 1
        usage = chunk.usage
        if usage is not None:
            answer.input_tokens = usage.prompt_tokens
            answer.output_tokens = usage.completion_tokens
            if usage.prompt_tokens_details is not None:
                answer.cached_tokens = usage.prompt_tokens_details.cached_tokens


# ---------------------------------------------------------------- a run


async def play(port: int, trace: Trace, *, model: str) -> list[Answer]:
    """Send the requests at their times; return once each has its answer or has failed."""
    loop = asyncio.get_running_loop()
    start_s = time.monotonic() + LEAD_S
    answers: list[Answer] = []
    tasks: list[asyncio.Task[None]] = []
    with _uncollected():
        for number, request in enumerate(trace.requests):
            data = payload(request, number, block_tokens=trace.block_tokens, model=model)
            answer = Answer(start_s + request.arrival_s)
            answers.append(answer)
            await asyncio.sleep(answer.intended_s - time.monotonic())
            tasks.append(loop.create_task(_ask(port, data, answer, request.output_tokens)))
        _, late = await asyncio.wait(tasks, timeout=DRAIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return answers


async def _ask(port: int, data: bytes, answer: Answer, wanted_tokens: int) -> None:
    loop = asyncio.get_running_loop()
    stream = _Stream(data, answer, wanted_tokens)
    try:
        await loop.create_connection(lambda: stream, HOST, port)
        await stream.ended
    except OSError as error:
        stream.end(f"no connection: {error}")
    except asyncio.CancelledError:
        stream.end("unfinished")
        raise


@contextmanager
def _uncollected() -> Iterator[None]:
    """A search for cycles would hold up every stream that is read."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def results_of(answers: Sequence[Answer], time_scale: float) -> Results:
    """The answers as the simulator notes them, in the engines' own seconds.

    With `--time-scale X` an engine's second takes 1/X s here.
    """
    results = Results()
    start_s = answers[0].intended_s
    for answer in answers:
        row = results.arrive((answer.intended_s - start_s) * time_scale)
        end_s = (answer.end_s - start_s) * time_scale
        if answer.error:
            results.give_up(row, end_s, FAILED)
            continue
        first_s = (answer.first_s - start_s) * time_scale
        last_s = (answer.last_s - start_s) * time_scale
        results.first_token(row, first_s, answer.input_tokens, answer.cached_tokens)
        results.complete(row, last_s, answer.output_tokens)
    results.end_s = max((answer.end_s - start_s) * time_scale for answer in answers)
    return results
