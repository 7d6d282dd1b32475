"""An engine whose health and models a test can change, and what a fleet says of it."""

import asyncio
from typing import Self

from headrace.core.events import Event
from headrace.edges.fleets.readiness import HealthSettings, PoolAccess
from headrace.engines.registry import dialect
from tests.scripted import Peer, Received, ScriptedEngine

SETTINGS = HealthSettings(interval_s=0.02, timeout_s=1.0, failures=2, models_interval_s=0.02)


class Engine(ScriptedEngine):
    """Serves `/health` and `/v1/models` as told."""

    def __init__(self, *, key: str = "", port: int = 0) -> None:
        super().__init__(_nothing, models=({"id": "m", "max_model_len": 4096},))
        self.status = 200
        self.key = key
        self.models_status = 200
        self.port = port

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    async def _answer(self, received: Received, peer: Peer) -> None:
        if received.target == "/health":
            await peer.json({}, self.status)
        elif received.target == "/v1/models" and self.models_status != 200:
            await peer.json({"detail": "no"}, self.models_status)
        elif self.key and received.headers.get("authorization") != f"Bearer {self.key}":
            await peer.json({"error": {"message": "no"}}, 401)
        else:
            await super()._answer(received, peer)


async def _nothing(_received: Received, peer: Peer) -> None:
    peer.reset()


class Heard:
    """What a fleet emitted and told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.lines: list[str] = []
        self.troubles: dict[str, str] = {}
        self._changed = asyncio.Event()

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def notice(self, line: str) -> None:
        self.lines.append(line)
        self._changed.set()

    def trouble(self, replica: str, reason: str) -> None:
        self.troubles[replica] = reason

    async def until_told(self, words: str) -> None:
        """Wait until a line has these words."""
        await self.until(lambda heard: any(words in line for line in heard.lines))

    async def until(self, predicate) -> None:
        """Wait until the last event, or the lines, are as wanted."""
        async with asyncio.timeout(10):
            while not predicate(self):
                self._changed.clear()
                await self._changed.wait()


def access(key: str = "", engine: str = "vllm") -> PoolAccess:
    headers = ((b"authorization", b"Bearer " + key.encode()),) if key else ()
    return PoolAccess("pool", "m", dialect(engine), headers)


def last_is(**facts):
    """A predicate: the last event has these attributes."""
    return lambda heard: (
        bool(heard.events)
        and all(getattr(heard.events[-1], name, None) == value for name, value in facts.items())
    )
