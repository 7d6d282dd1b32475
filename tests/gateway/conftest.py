"""A real data plane on a real port in front of scripted engines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import uvloop

from headrace.core.dispatcher import Dispatcher
from headrace.core.events import ConfigChanged, ReplicaChanged
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, PoolSpec
from headrace.gateway.keys import KeyRing
from headrace.gateway.server import DataPlane
from headrace.gateway.settings import GatewaySettings, Limits, Listener, Timeouts, UpstreamAccess
from headrace.gateway.telemetry import Telemetry, TelemetrySettings
from headrace.gateway.tracing import Tracer
from tests.certificates import write_certificate
from tests.plain_http import NO_TRUST_STORE
from tests.scripted import Script, ScriptedEngine


@dataclass
class Rig:
    """A gateway, its engines and a client."""

    plane: DataPlane
    telemetry: Telemetry
    client: httpx.AsyncClient
    engines: list[ScriptedEngine] = field(default_factory=list)

    @property
    def fleet(self):
        return self.plane.dispatcher.fleet

    async def chat(self, **body: object) -> httpx.Response:
        message = {"role": "user", "content": "hi"}
        return await self.client.post(
            "/v1/chat/completions", json={"model": "m", "messages": [message], **body}
        )


@asynccontextmanager
async def run_gateway(
    *scripts: Script,
    engine: str = "vllm",
    policy: str = "round_robin",
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    dispatcher: DispatcherSettings | None = None,
    make_core: Callable[[DispatcherSettings, random.Random], Any] = Dispatcher,
    tiers: tuple[str, ...] = ("default",),
    aliases: tuple[Alias, ...] = (),
    adapters: tuple[frozenset[str], ...] = (),
    keys: KeyRing | None = None,
    api_key: str | None = None,
    cors_origins: tuple[str, ...] = (),
    tracer: Tracer | None = None,
) -> AsyncIterator[Rig]:
    """One pool `p` of model `m` with a replica `r0`, `r1`, … per script."""
    settings = GatewaySettings(
        listen=Listener(port=0, cors_origins=cors_origins),
        limits=limits or Limits(),
        timeouts=timeouts or Timeouts(),
        upstreams={"p": UpstreamAccess(engine=engine, api_key=api_key)},
        tiers=tiers,
    )
    core = make_core(dispatcher or DispatcherSettings(), random.Random(1))
    telemetry = Telemetry(TelemetrySettings(), time.monotonic, core.fleet)
    plane = DataPlane(settings, core, telemetry, keys=keys, tracer=tracer)
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(ScriptedEngine(script)) for script in scripts]
        await plane.start()
        stack.push_async_callback(plane.close)
        plane.apply(ConfigChanged((PoolSpec("p", "m", policy=policy),), aliases))
        for number, upstream in enumerate(engines):
            held = adapters[number] if adapters else frozenset[str]()
            plane.apply(ReplicaChanged(f"r{number}", "p", upstream.url, ready=True, adapters=held))
        base = f"http://127.0.0.1:{plane.port}"
        client = httpx.AsyncClient(
            base_url=base, timeout=30, trust_env=False, verify=NO_TRUST_STORE
        )
        yield Rig(plane, telemetry, await stack.enter_async_context(client), engines)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gateway runs on uvloop, whose transports behave a little differently from asyncio's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    """Signed the certificate beside the configuration."""
    ca = trustme.CA()
    write_certificate(ca, tmp_path, "127.0.0.1")
    return ca
