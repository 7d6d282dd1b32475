"""A scripted upstream: a real server on a real port that answers as a test says, byte for byte.

For what no engine here does on demand: stored responses, adapters, faults at a chosen byte.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec


@dataclass
class Received:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return msgspec.json.decode(self.body)


@dataclass
class Peer:
    """The script's hand on one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def json(self, body: object, status: int = 200, headers: str = "") -> None:
        data = msgspec.json.encode(body)
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}"
        await self.send(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)

    async def start_stream(self) -> None:
        await self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, body: object) -> None:
        await self.chunk(b"data: " + msgspec.json.encode(body) + b"\n\n")

    async def end_stream(self, *, done: bool = True) -> None:
        if done:
            await self.chunk(b"data: [DONE]\n\n")
        await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        self.writer.transport.abort()


Script = Callable[[Received, Peer], Awaitable[None]]


class ScriptedEngine:
    """Serves `/health`, `/v1/models`, `/metrics` plainly; everything else by the script."""

    def __init__(
        self,
        script: Script,
        *,
        models: tuple[dict[str, object], ...] = (),
        tls: ssl.SSLContext | None = None,
        unix: str = "",
    ) -> None:
        self.script = script
        self.models = list(models)
        self.received: list[Received] = []
        self.connections = 0
        self.clients_gone = 0
        self.port = 0
        self._tls = tls
        self._unix = unix
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        if self._unix:
            return f"unix:{self._unix}"
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        if self._unix:
            self._server = await asyncio.start_unix_server(self._serve, self._unix)
            return self
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        peer = Peer(reader, writer)
        try:
            while True:
                received = await _read_request(reader)
                await self._answer(received, peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            self.clients_gone += 1
        finally:
            writer.close()

    async def _answer(self, received: Received, peer: Peer) -> None:
        if received.target == "/health":
            await peer.json({"status": "ok"})
        elif received.target == "/v1/models":
            await peer.json({"object": "list", "data": self.models})
        else:
            self.received.append(received)
            await self.script(received, peer)


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.split("\r\n")
    method, target, _ = start.split(" ")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


def chat_chunk(text: str | None, **extra: object) -> dict[str, object]:
    """A chat chunk as vLLM writes it; None gives the role chunk."""
    delta = {"role": "assistant", "content": ""} if text is None else {"content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        **extra,
    }


def usage_chunk(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """The last chunk when usage was asked for."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [],
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        },
    }


async def stream_words(
    peer: Peer,
    words: int,
    *,
    input_tokens: int = 7,
    pause_s: float = 0.0,
    usage: bool = True,
    may_end: asyncio.Event | None = None,
) -> None:
    """A whole chat stream of `words` one-token chunks, the last of them when it may end."""
    await peer.start_stream()
    await peer.event(chat_chunk(None))
    for i in range(words):
        if may_end is not None and i == words - 1:
            await may_end.wait()
        await peer.event(chat_chunk(f"w{i} "))
        if pause_s:
            await asyncio.sleep(pause_s)
    if usage:
        await peer.event(usage_chunk(input_tokens, words))
    await peer.end_stream()
