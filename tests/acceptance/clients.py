"""Clients of a gateway that look at what is on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import h11
import httpx
import msgspec

from tests.live.up import HANG_S, Up

READ_BYTES = 65536


def post(gateway: Up, endpoint: str, body: Mapping[str, object]) -> httpx.Response:
    """The whole answer."""
    answer = httpx.post(f"{gateway.url}/v1/{endpoint}", json=body, timeout=HANG_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer


def stream_events(gateway: Up, endpoint: str, body: Mapping[str, object]) -> list[dict[str, Any]]:
    """Every event of a stream but `[DONE]`."""
    lines = post(gateway, endpoint, body).text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [msgspec.json.decode(text) for text in data if text != "[DONE]"]


async def leave_after(
    url: str, endpoint: str, body: Mapping[str, object], *, chunks: int, wait_s: float = 0.5
) -> int:
    """Ask for a stream and leave after so many content chunks; return how many were relayed.

    It leaves as a closed connection does, by ending its own side, but reads on until the gateway
    has closed too: so what the gateway had sent by then is known and not lost with the socket.
    With `chunks=0` it leaves after `wait_s` seconds, whatever has come.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        http = h11.Connection(h11.CLIENT)
        writer.write(_request(http, parts.netloc, endpoint, msgspec.json.encode(body)))
        answer = _Answer(http)
        if chunks == 0:
            await asyncio.sleep(wait_s)
        while answer.content_chunks < chunks:
            data = await reader.read(READ_BYTES)
            assert data, f"the answer ended after {answer.content_chunks} content chunks"
            answer.take(data)
        writer.write_eof()
        while data := await reader.read(READ_BYTES):
            answer.take(data)
        return answer.content_chunks
    finally:
        writer.close()


def _request(http: h11.Connection, host: str, endpoint: str, body: bytes) -> bytes:
    head = h11.Request(
        method="POST",
        target=f"/v1/{endpoint}",
        headers=[
            ("host", host),
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
        ],
    )
    pieces = (http.send(head), http.send(h11.Data(body)), http.send(h11.EndOfMessage()))
    return b"".join(piece for piece in pieces if piece)


class _Answer:
    """A streamed answer as far as it came."""

    def __init__(self, http: h11.Connection) -> None:
        self.content_chunks = 0
        self._http = http
        self._rest = b""

    def take(self, data: bytes) -> None:
        self._http.receive_data(data)
        while not isinstance(event := self._http.next_event(), type):  # NEED_DATA and the like
            if isinstance(event, h11.Response):
                assert event.status_code == 200, event
            if isinstance(event, h11.Data):
                *events, self._rest = (self._rest + bytes(event.data)).split(b"\n\n")
                self.content_chunks += sum(map(has_content, events))


def has_content(event: bytes) -> bool:
    """Whether an event of a chat or completions stream carries text."""
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        return False
    choices = msgspec.json.decode(data)["choices"]
    return any(
        choice["text"] if "text" in choice else choice["delta"].get("content") for choice in choices
    )
