"""Two real vLLM servers, one of them with a LoRA adapter: what belongs to one of them finds it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.clients import post
from tests.acceptance.conftest import API_KEY
from tests.acceptance.serving import Figures, figures, running_serve
from tests.acceptance.vllm_server import VllmServer, running_vllm
from tests.live.up import HANG_S, Up
from tools.vllm_env import VllmEnv

pytestmark = [pytest.mark.acceptance, pytest.mark.vllm, pytest.mark.timeout(900)]

ADAPTER = "poet"
WRITE_ADAPTER = Path(__file__).parents[2] / "tools" / "random_adapter.py"


@pytest.fixture(scope="module")
def with_adapter(
    vllm_env: VllmEnv, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A server that holds an adapter."""
    folder = tmp_path_factory.mktemp("vllm-with-adapter")
    adapter = folder / ADAPTER
    line = [vllm_env.python, WRITE_ADAPTER, vllm_env.model, adapter]
    subprocess.run([str(word) for word in line], check=True, timeout=HANG_S)
    options = ("--enable-lora", "--lora-modules", f"{ADAPTER}={adapter}")
    with running_vllm(vllm_env, folder, *options, api_key=API_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(
    vllm: VllmServer, with_adapter: VllmServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Up]:
    config = f"""
        pools:
          - name: pair
            model: {vllm.model_id}
            engine: vllm
            replicas: ["{vllm.url}", "{with_adapter.url}"]
            api_key_env: KEY_OF_THE_ENGINES
    """
    folder = tmp_path_factory.mktemp("gateway-of-two")
    with running_serve(config, folder, env={"KEY_OF_THE_ENGINES": API_KEY}) as running:
        guard = time.monotonic() + HANG_S
        while {replica["state"] for replica in running.fleet().values()} != {"ready"}:
            assert time.monotonic() < guard, running.fleet()
            time.sleep(0.1)
        yield running


def url_of(gateway: Up, answer: httpx.Response) -> object:
    """Where an answer came from."""
    return gateway.fleet()[answer.headers["x-headrace-replica"]]["url"]


def test_an_adapter_is_a_model_and_finds_the_replica_that_holds_it(
    gateway: Up, vllm: VllmServer, with_adapter: VllmServer
):
    listed = httpx.get(f"{gateway.url}/v1/models", trust_env=False).json()["data"]
    assert {vllm.model_id, ADAPTER} <= {model["id"] for model in listed}
    for number in range(6):
        body = {"model": ADAPTER, "prompt": f"{number} roses", "max_tokens": 2}
        answer = post(gateway, "completions", body)
        assert answer.json()["model"] == ADAPTER
        assert url_of(gateway, answer) == with_adapter.url
    counted = figures(gateway)
    assert counted.total("llm_tokens_processed_total", model_id=ADAPTER, token_type="output") == 12


def test_a_long_prefix_goes_back_to_the_engine_that_has_it(gateway: Up, vllm: VllmServer):
    seen: set[object] = set()
    for subject in ("river", "dam", "lake", "gate"):
        words = " ".join(f"{subject}{number}" for number in range(150))
        body = {"model": vllm.model_id, "prompt": words, "max_tokens": 2}
        first, second = post(gateway, "completions", body), post(gateway, "completions", body)
        assert url_of(gateway, second) == url_of(gateway, first)
        assert second.json()["usage"]["prompt_tokens_details"]["cached_tokens"] >= 128
        seen.add(url_of(gateway, first))
    print(f"four prefixes on {len(seen)} replicas")


def respond(gateway: Up, model_id: str, **more: object) -> dict[str, Any]:
    """Make a stored response."""
    body = {"model": model_id, "input": "Say hi", "max_output_tokens": 8, "store": True, **more}
    return post(gateway, "responses", body).json()


def get(gateway: Up, path: str) -> httpx.Response:
    """GET through the gateway."""
    return httpx.get(f"{gateway.url}/v1/{path}", timeout=HANG_S, trust_env=False)


def test_a_stored_response_is_found_where_it_is(gateway: Up, vllm: VllmServer):
    stored = [respond(gateway, vllm.model_id) for _ in range(6)]
    for response in stored:
        found = get(gateway, f"responses/{response['id']}")
        assert found.status_code == 200, found.text
        assert found.json()["output"] == response["output"]
    for response in stored:
        following = respond(gateway, vllm.model_id, previous_response_id=response["id"])
        assert following["usage"]["input_tokens"] > response["usage"]["input_tokens"]
    assert get(gateway, "responses/resp_of_nobody").status_code == 404


def test_a_response_in_the_background_is_cancelled_where_it_runs(
    gateway: Up, vllm: VllmServer, with_adapter: VllmServer
):
    response = respond(gateway, vllm.model_id, background=True, max_output_tokens=1900)
    assert response["status"] in {"queued", "in_progress"}
    url = f"{gateway.url}/v1/responses/{response['id']}/cancel"
    cancelled = httpx.post(url, timeout=HANG_S, trust_env=False)
    assert cancelled.status_code == 200, cancelled.text
    assert get(gateway, f"responses/{response['id']}").json()["status"] == "cancelled"
    guard = time.monotonic() + HANG_S
    while any(
        Figures(server.metrics()).total("vllm:num_requests_running")
        for server in (vllm, with_adapter)
    ):
        assert time.monotonic() < guard, "an engine still works for a response that was cancelled"
        time.sleep(0.1)
