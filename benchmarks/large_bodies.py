"""How long a 64 MB request body holds up everybody else's streams.

One stream of a chunk every 10 ms runs through the gateway to one engine while bodies of 60 MB,
of six shapes, and one of 4 MB in chunks of two bytes, are sent through it to another. What counts
is the longest gap between two chunks of the stream, beside the longest gap without any body, in the
same run. The engine that takes the bodies is a plain sink: what it does with them is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from benchmarks.engines import MODEL, engines, stream
from benchmarks.processes import HEADRACE, free_port, running, wait_until_served

BODY_BYTES = 60_000_000
SINK_MODEL = "sink"
ROUNDS = 3


def requests() -> Iterator[tuple[str, bytes]]:
    """Shapes of bodies that cost a reader in different ways, as whole requests."""
    begin = b'{"model":"%b",' % SINK_MODEL.encode()
    words = b"many words " * (BODY_BYTES // 11)
    text = b'%b"messages":[{"role":"user","content":"%b"}]}' % (begin, words)
    yield "one long text", _chat(text)
    yield "after a space", _chat(b" " + text)
    turn = b'{"role":"user","content":"a short turn of a long talk, \\"quoted\\""},'
    turns = turn * (BODY_BYTES // len(turn))
    yield "a million turns", _chat(b'%b"messages":[%b{"role":"user"}]}' % (begin, turns))
    ids = b"12345," * (BODY_BYTES // 6)
    yield "token ids", _chat(b'%b"messages":[],"prompt":[%b1]}' % (begin, ids))
    yield "form, noise", _form(random.Random(1).randbytes(BODY_BYTES))
    yield "form, delimiters", _form(b"\r\n--X" * (BODY_BYTES // 5))
    short = b'%b"messages":[{"role":"user","content":"%b"}]}' % (begin, b"ab" * 2_000_000)
    chunks = b"".join(b"2\r\n%b\r\n" % short[at : at + 2] for at in range(0, len(short) - 1, 2))
    chunks += b"1\r\n}\r\n" if len(short) % 2 else b""
    yield "4 MB, tiny chunks", _CHAT + b"transfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunks


_CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


def _chat(body: bytes) -> bytes:
    return _CHAT + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def _form(file: bytes) -> bytes:
    """A transcription whose file comes before the name of the model."""
    part = b'--XX\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    body = part % (b'file"; filename="a', file) + part % (b"model", SINK_MODEL.encode()) + b"--XX--"
    head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n"
    head += b"content-type: multipart/form-data; boundary=XX\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


async def serve_sink(port: int) -> asyncio.Server:
    """An engine that throws bodies away and answers `{}`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"content-length: (\d+)", head)
                left = int(found[1]) if found else 0
                while left > 0:
                    left -= len(await reader.read(min(left, 1 << 18)))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", port, limit=1 << 18)


async def watch(port: int, stop: asyncio.Event) -> float:
    """Read a stream until told to stop; return its longest gap in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(stream(100_000))
    await reader.read(1 << 16)
    longest_s, last_s = 0.0, time.monotonic()
    while not stop.is_set():
        await reader.read(1 << 16)
        now = time.monotonic()
        longest_s, last_s = max(longest_s, now - last_s), now
    writer.close()
    return longest_s


async def send(port: int, request: bytes) -> None:
    """Send one request in a process of its own, so that the watcher is not held up by the sending.

    The first byte of the body comes alone: a reader must not judge the whole by its first piece.
    """
    script = (
        "import socket,sys,time\n"
        "data=sys.stdin.buffer.read()\n"
        "first=data.index(b'\\r\\n\\r\\n')+5\n"
        f"s=socket.create_connection(('127.0.0.1',{port}))\n"
        "s.sendall(data[:first])\n"
        "time.sleep(0.1)\n"
        "s.sendall(data[first:])\n"
        "print(s.recv(65536)[:40])\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate(request)
    assert b"200" in answer, answer


async def longest_gap_s(port: int, request: bytes | None) -> float:
    """The longest gap of a stream during `ROUNDS` requests, or during as many seconds of rest."""
    stop = asyncio.Event()
    watching = asyncio.create_task(watch(port, stop))
    await asyncio.sleep(0.5)
    for _ in range(ROUNDS):
        if request is None:
            await asyncio.sleep(1.0)
        else:
            await send(port, request)
    stop.set()
    return await watching


async def measure(emulated_url: str, folder: Path) -> dict[str, float]:
    """Run the gateway in front of the emulated engine and the sink."""
    port, sink_port = free_port(), free_port()
    sink = await serve_sink(sink_port)
    pools = [
        {"name": "streams", "model": MODEL, "engine": "vllm", "replicas": [emulated_url]},
        {
            "name": "sink",
            "model": SINK_MODEL,
            "engine": "openai",
            "replicas": [f"http://127.0.0.1:{sink_port}"],
        },
    ]
    config = {"listen": {"port": port}, "control": {"port": free_port()}, "pools": pools}
    file = folder / "headrace.yaml"
    file.write_text(json.dumps(config))
    with running([*HEADRACE, "serve", "-c", str(file)]) as gateway:
        await asyncio.to_thread(wait_until_served, gateway, port, "/ready")
        await asyncio.sleep(3)  # the sink is checked too
        gaps = {"no body": await longest_gap_s(port, None)}
        for name, request in requests():
            gaps[name] = await longest_gap_s(port, request)
    sink.close()
    return gaps


def main() -> None:
    """Print the longest gaps, in milliseconds, and their ratio to the one without a body."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    as_json = options.parse_args().json
    with tempfile.TemporaryDirectory() as folder, engines("ttft=1ms,itl=10ms", count=1) as emulated:
        gaps = uvloop.run(measure(emulated.urls[0], Path(folder)))
    if as_json:
        print(json.dumps({name: gap_s * 1000 for name, gap_s in gaps.items()}))
        return
    rest_s = gaps["no body"]
    for name, gap_s in gaps.items():
        print(f"{name:18} longest gap {gap_s * 1000:6.1f} ms   {gap_s / rest_s:4.1f} x no body")


if __name__ == "__main__":
    main()
