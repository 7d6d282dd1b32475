"""The gateway in front of a real vLLM, started from a file as a user starts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import httpx
import openai
import pytest

from tests.acceptance.clients import post, stream_events
from tests.acceptance.serving import Figures, figures, tokens
from tests.live.up import HANG_S, Up

pytestmark = [pytest.mark.acceptance, pytest.mark.vllm, pytest.mark.timeout(900)]

HELLO = [{"role": "user", "content": "Say hello in five words."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture
def client(vllm_gateway: Up) -> Iterator[openai.OpenAI]:
    url = f"{vllm_gateway.url}/v1"
    with openai.OpenAI(base_url=url, api_key="of-the-client", max_retries=0) as client:
        yield client


class TestOfficialClient:
    """What people have in their code works unchanged."""

    def test_chat(self, client, vllm):
        answer = client.chat.completions.create(model=vllm.model_id, messages=HELLO, max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0

    def test_an_alias_is_a_model(self, client):
        assert client.chat.completions.create(model="small", messages=HELLO, max_tokens=2).id

    def test_stream_with_usage(self, client, vllm):
        chunks = list(
            client.chat.completions.create(
                model=vllm.model_id,
                messages=HELLO,
                max_tokens=8,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert chunks[-1].usage.completion_tokens > 0

    def test_completions(self, client, vllm):
        answer = client.completions.create(
            model=vllm.model_id, prompt="Once upon a time", max_tokens=6
        )
        assert answer.choices[0].text
        assert answer.usage.completion_tokens > 0

    def test_models(self, client, vllm):
        assert vllm.model_id in [model.id for model in client.models.list()]
        assert client.models.retrieve(vllm.model_id).id == vllm.model_id

    def test_tools(self, client, vllm):
        answer = client.chat.completions.create(
            model=vllm.model_id,
            messages=[{"role": "user", "content": "Weather in Paris?"}],
            tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            max_tokens=128,
            temperature=0,  # what is cut off is no call
        )
        assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"

    def test_responses(self, client, vllm):
        answer = client.responses.create(model=vllm.model_id, input="Say hi", max_output_tokens=8)
        assert answer.output_text

    def test_errors(self, client, vllm):
        with pytest.raises(openai.NotFoundError, match=vllm.model_id):
            client.chat.completions.create(model="no-such-model", messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="context"):
            client.completions.create(model=vllm.model_id, prompt="word " * 3000, max_tokens=2)


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_usage_asked_for_by_the_gateway_stays_hidden(vllm_gateway: Up, vllm, endpoint):
    before = figures(vllm_gateway)
    body = {**prompt_for(endpoint), "model": vllm.model_id, "max_tokens": 12, "stream": True}
    events = stream_events(vllm_gateway, endpoint, body)
    assert all(event["choices"] for event in events)
    assert not any(event.get("usage") for event in events)
    counted = figures(vllm_gateway)
    # Asked again with the client's own wish for usage, the prompt has the same length.
    wish = {"stream_options": {"include_usage": True}}
    usage = stream_events(vllm_gateway, endpoint, {**body, **wish})[-1]["usage"]
    assert tokens(counted, "input") - tokens(before, "input") == usage["prompt_tokens"]
    assert 0 < tokens(counted, "output") - tokens(before, "output") <= 12


def prompt_for(endpoint: str) -> dict[str, object]:
    """A prompt in the words of an endpoint."""
    if endpoint == "completions":
        return {"prompt": "Once upon a time"}
    return {"input": "Say hi"} if endpoint == "responses" else {"messages": HELLO}


class Api(NamedTuple):
    """Where an endpoint takes the limit of its answer, and where its stream tells the usage."""

    endpoint: str
    limit: str
    wish: Mapping[str, object]
    usage_of_stream: Callable[[list[dict]], dict]


def last_usage(events: list[dict]) -> dict:
    return events[-1]["usage"]


def response_usage(events: list[dict]) -> dict:
    return events[-1]["response"]["usage"]


def message_usage(events: list[dict]) -> dict:
    start = next(event for event in events if event["type"] == "message_start")
    delta = next(event for event in events if event["type"] == "message_delta")
    return {**start["message"]["usage"], **delta["usage"]}


USAGE_WISH = {"stream_options": {"include_usage": True}}
APIS = (
    Api("chat/completions", "max_tokens", USAGE_WISH, last_usage),
    Api("completions", "max_tokens", USAGE_WISH, last_usage),
    Api("responses", "max_output_tokens", {}, response_usage),
    Api("messages", "max_tokens", {}, message_usage),
)


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.endpoint)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_counters_are_the_usage_that_the_engine_told(
    vllm_gateway: Up, vllm, api: Api, stream: bool
):
    body = {"model": vllm.model_id, **prompt_for(api.endpoint), api.limit: 10}
    before, engine_before = figures(vllm_gateway), Figures(vllm.metrics())
    if stream:
        events = stream_events(vllm_gateway, api.endpoint, {**body, "stream": True, **api.wish})
        usage = api.usage_of_stream(events)
    else:
        usage = post(vllm_gateway, api.endpoint, body).json()["usage"]
    after, engine_after = figures(vllm_gateway), Figures(vllm.metrics())
    told: dict[str, int] = {
        "input": usage.get("prompt_tokens") or usage["input_tokens"],
        "output": usage.get("completion_tokens") or usage["output_tokens"],
    }
    assert told["output"] > 0
    for kind, engines_name in (
        ("input", "vllm:prompt_tokens_total"),
        ("output", "vllm:generation_tokens_total"),
    ):
        assert tokens(after, kind) - tokens(before, kind) == told[kind]
        assert engine_after.total(engines_name) - engine_before.total(engines_name) == told[kind]


def test_cached_tokens_are_counted(vllm_gateway: Up, vllm):
    words = " ".join(f"word{n}" for n in range(150))
    body = {"model": vllm.model_id, "prompt": words, "max_tokens": 2}
    post(vllm_gateway, "completions", body)
    before = figures(vllm_gateway)
    usage = post(vllm_gateway, "completions", body).json()["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached >= 128  # a block of vLLM's
    name = "llm_cached_input_tokens_total"
    assert figures(vllm_gateway).total(name) - before.total(name) == cached


def test_the_engine_gets_the_pools_key_and_not_the_clients(vllm_gateway: Up, vllm):
    body = {"model": vllm.model_id, "messages": HELLO, "max_tokens": 2}
    refused = httpx.post(f"{vllm.url}/v1/chat/completions", json=body, trust_env=False)
    assert refused.status_code == 401
    answer = httpx.post(
        f"{vllm_gateway.url}/v1/chat/completions",
        json=body,
        headers={"authorization": "Bearer of-the-client"},
        timeout=HANG_S,
        trust_env=False,
    )
    assert answer.status_code == 200


def test_a_decision_is_explained(vllm_gateway: Up, vllm):
    answer = post(
        vllm_gateway,
        "chat/completions",
        {"model": vllm.model_id, "messages": HELLO, "max_tokens": 2},
    )
    explained: dict = vllm_gateway.why(answer.headers["x-headrace-request-id"])
    assert [attempt["replica"] for attempt in explained["attempts"]] == [
        answer.headers["x-headrace-replica"]
    ]


def test_latencies_are_in_histograms(vllm_gateway: Up, vllm):
    before = figures(vllm_gateway)
    events = stream_events(
        vllm_gateway,
        "chat/completions",
        {"model": vllm.model_id, "messages": HELLO, "max_tokens": 8, "stream": True},
    )
    assert events
    after = figures(vllm_gateway)
    for name in ("llm_ttft_seconds_count", "llm_tpot_seconds_count"):
        assert after.total(name) - before.total(name) == 1
    assert after.total("llm_itl_seconds_count") > before.total("llm_itl_seconds_count")
