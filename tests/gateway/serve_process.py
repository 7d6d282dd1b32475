"""`headrace serve` as a process of its own, on free ports."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.plain_http import NO_TRUST_STORE
from tests.scripted import ScriptedEngine

HANG_S = 60.0
LISTEN = "listen: {port: 0}\ncontrol: {port: 0}\n"
"""For tests that listen as always."""


class Serve:
    """A running `headrace serve`."""

    def __init__(
        self, process: Process, file: Path, addresses: tuple[str, str], tls: ssl.SSLContext | None
    ) -> None:
        url, self.control = addresses
        self.process = process
        self.file = file
        self.said: list[str] = []
        """Lines of stderr that were waited for."""
        uds = url.removeprefix("unix:") if url.startswith("unix:") else None
        self.client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=uds, verify=tls or NO_TRUST_STORE),
            base_url="http://localhost" if uds else url,
            timeout=HANG_S,
        )
        self.control_client = httpx.AsyncClient(
            base_url=self.control, timeout=HANG_S, trust_env=False, verify=tls or NO_TRUST_STORE
        )

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    async def hears(self, words: str) -> str:
        """Wait for a line on stderr."""
        assert self.process.stderr is not None
        async with asyncio.timeout(HANG_S):
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, f"{words!r} was never said, but: {self.said}"
                self.said.append(line.rstrip())
                if words in line:
                    return line.rstrip()

    async def prints(self, name: str) -> str:
        """Wait for a line on stdout that begins so."""
        assert self.process.stdout is not None
        async with asyncio.timeout(HANG_S):
            while True:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"no line of stdout began with {name!r}"
                if line.startswith(name):
                    return line.rstrip()

    async def reload(self, text: str | None = None, *, listen: str = LISTEN) -> str:
        """Change the file, or not, and have it read again; what was said when it was done."""
        if text is not None:
            self.file.write_text(listen + HEALTH + text)
        before = len(self.said)
        self.signal(signal.SIGHUP)
        async with asyncio.timeout(HANG_S):
            while not any(
                end in line for line in self.said[before:] for end in ("reloaded ", "stays as it")
            ):
                await self.hears("")
        return "\n".join(self.said[before:])

    async def metric(self, name: str) -> float:
        """A sample of the control plane's metrics, by its name with labels."""
        text = (await self.control_client.get("/metrics")).text
        rows = (line.rpartition(" ") for line in text.splitlines() if line[:1] != "#")
        return {sample: float(value) for sample, _, value in rows}[name]

    async def ended(self) -> tuple[int, str]:
        """Its exit code and what it said on stderr."""
        _, errors = await asyncio.wait_for(self.process.communicate(), HANG_S)
        assert self.process.returncode is not None
        return self.process.returncode, errors.decode()

    async def ready(self) -> None:
        async with asyncio.timeout(HANG_S):
            while (await self.client.get("/ready")).status_code != 200:
                await asyncio.sleep(0.02)


async def headrace(*arguments: str | Path, **environ: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "headrace", *map(str, arguments)),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, **environ},
    )


HEALTH = "health: {interval: 50ms}\n"


@asynccontextmanager
async def serving(
    tmp_path: Path,
    text: str,
    *,
    listen: str = LISTEN,
    tls: ssl.SSLContext | None = None,
    **environ: str,
) -> AsyncIterator[Serve]:
    """Run `serve` on free ports until its engines are ready."""
    file = tmp_path / "headrace.yaml"
    file.write_text(listen + HEALTH + text)
    process = await headrace("serve", "-c", file, **environ)
    assert process.stdout is not None
    try:
        lines = [(await process.stdout.readline()).decode() for _ in range(2)]
        url, control = (next(w for w in line.split() if ":/" in w) for line in lines)
        serve = Serve(process, file, (url.removesuffix("/v1"), control), tls)
        async with serve.client, serve.control_client:
            await serve.ready()
            yield serve
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def pool(engine: ScriptedEngine, name: str = "p", model: str = "m", more: str = "") -> str:
    return f"  - {{name: {name}, model: {model}, engine: vllm, replicas: [{engine.url}]{more}}}\n"
