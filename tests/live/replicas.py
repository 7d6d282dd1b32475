"""Real llama.cpp replicas for as long as a test runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headrace.edges.fleets.local import FleetEvent, LocalFleet, LocalFleetSettings, ReplicaUp

HANG_GUARD_S = 240.0


@contextmanager
def running_replicas(settings: LocalFleetSettings, count: int, path: str) -> Iterator[list[str]]:
    """Start so many with this PATH; their URLs, by name."""
    urls: dict[str, str] = {}

    def note(event: FleetEvent) -> None:
        if isinstance(event, ReplicaUp):
            urls[event.name] = event.url

    fleet = LocalFleet(settings, note)

    async def start() -> None:
        fleet.start(count)
        await fleet.wait_ready()

    # A loop in a thread of its own, because each test brings another loop.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="llamacpp-replicas")
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", path)
            asyncio.run_coroutine_threadsafe(start(), loop).result(HANG_GUARD_S)
        yield [urls[name] for name in sorted(urls)]
    finally:
        asyncio.run_coroutine_threadsafe(fleet.stop(), loop).result(HANG_GUARD_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
