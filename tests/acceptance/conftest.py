"""A real vLLM, made by `tools/vllm_env.py`, for the tests that only talk to it."""

from collections.abc import Iterator

import pytest

from tests.acceptance.serving import running_serve
from tests.acceptance.vllm_server import VllmServer, running_vllm
from tests.live.up import Up
from tests.real_tools import unavailable
from tools.vllm_env import VllmEnv, VllmUnavailableError, find

API_KEY = "a-key-of-the-engines"


@pytest.fixture(scope="session")
def vllm_env() -> VllmEnv:
    """What vLLM is started with."""
    try:
        return find()
    except VllmUnavailableError as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def vllm(vllm_env: VllmEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """One server with prefix caching, 8 sequences at once, and an API key."""
    with running_vllm(vllm_env, tmp_path_factory.mktemp("vllm"), api_key=API_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def vllm_gateway(vllm: VllmServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`headrace serve` in front of it, with the engine's key and an alias."""
    config = f"""
        pools:
          - name: real
            model: {vllm.model_id}
            engine: vllm
            replicas: ["{vllm.url}"]
            api_key_env: KEY_OF_THE_ENGINES
        aliases:
          small: {vllm.model_id}
    """
    key = {"KEY_OF_THE_ENGINES": vllm.api_key}
    with running_serve(config, tmp_path_factory.mktemp("gateway"), env=key) as running:
        yield running
