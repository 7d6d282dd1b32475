"""`/v1/messages`, `/v1/responses` and tools of an emulated engine, held to captured answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from headrace.core.model import Endpoint, Usage
from headrace.engines.registry import dialect
from headrace.engines.usage import ContentKind, StreamReader
from tests.conformance.captures import load
from tests.unit.emulator.asked import HELLO, chat, events, modelled, running

MESSAGES = {**HELLO, "max_tokens": 6}
RESPONSES = {"input": "hello there", "max_output_tokens": 6}
ASKED = {"/v1/messages": MESSAGES, "/v1/responses": RESPONSES}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_time")]


def named_events(body: bytes) -> list[dict[str, Any]]:
    """The data of a stream of named events; asserts that names and types agree."""
    found: list[dict[str, Any]] = []
    for event in body.decode().split("\n\n")[:-1]:
        name, data = event.splitlines()
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def read(endpoint: Endpoint, answer: httpx.Response) -> StreamReader:
    reader = dialect("vllm").stream_reader(endpoint)
    for event in answer.content.split(b"\n\n")[:-1]:
        reader.feed(event + b"\n\n")
    return reader


async def test_a_streamed_message_has_the_events_of_a_real_one():
    async with running() as (_, client):
        answer = await client.post("/v1/messages", json={**MESSAGES, "stream": True})
    ours = named_events(answer.content)
    real = named_events(load("vllm", "messages-stream").body)
    assert [each["type"] for each in ours if each["type"] != "content_block_delta"] == [
        each["type"] for each in real if each["type"] != "content_block_delta"
    ]
    for event in ours:
        like = next(each for each in real if each["type"] == event["type"])
        assert event.keys() == like.keys()
        if event["type"] == "message_start":
            assert event["message"].keys() == like["message"].keys()
        elif event["type"] == "message_delta":
            assert event["delta"] == like["delta"]
    reader = read(Endpoint.MESSAGES, answer)
    assert (reader.done, reader.content_chunks) == (True, 6)
    assert reader.usage is not None
    assert (reader.usage.output_tokens, reader.usage.input_tokens > 0) == (6, True)


@pytest.mark.parametrize("path", ASKED)
async def test_a_whole_answer_has_no_field_that_a_real_one_lacks(path: str):
    async with running() as (_, client):
        answer = (await client.post(path, json=ASKED[path])).json()
    real = json.loads(load("vllm", path.removeprefix("/v1/") + "-nonstream").body)
    assert answer.keys() <= real.keys()
    assert answer["usage"].keys() <= real["usage"].keys()
    assert answer["usage"]["output_tokens"] == 6
    for field in ("status", "stop_reason", "incomplete_details", "type", "role", "object"):
        assert answer.get(field) == real.get(field)


async def test_a_streamed_response_is_numbered_and_ends_with_its_usage():
    async with running(output_tokens=4) as (_, client):
        body = {"input": [{"role": "user", "content": "hello there"}], "stream": True}
        answer = await client.post("/v1/responses", json=body)
    ours = named_events(answer.content)
    assert [each["sequence_number"] for each in ours] == list(range(len(ours)))
    assert ours[-1]["type"] == "response.completed"
    reader = read(Endpoint.RESPONSES, answer)
    assert (reader.done, reader.content_chunks) == (True, 4)
    assert reader.response_id == ours[0]["response"]["id"]
    assert reader.usage is not None
    assert reader.usage.output_tokens == 4
    real = [event.splitlines()[0] for event in load("llamacpp", "responses-stream").events]
    assert dict.fromkeys(f"event: {each['type']}".encode() for each in ours) == dict.fromkeys(real)


@pytest.mark.parametrize("path", ASKED)
async def test_what_is_cached_is_told_apart_from_what_is_not(path: str):
    long = {"messages": [{"role": "user", "content": "water " * 2000}], "max_tokens": 1}
    body = long if path == "/v1/messages" else {"input": "water " * 2000, "max_output_tokens": 1}
    endpoint = Endpoint.MESSAGES if path == "/v1/messages" else Endpoint.RESPONSES
    usages: list[Usage] = []
    async with modelled() as (_, client):
        for _ in range(2):
            answer = await client.post(path, json=body)
            usage = dialect("vllm").read_body(endpoint, answer.content).usage
            assert usage is not None
            usages.append(usage)
    first, again = usages
    assert (first.cached_tokens, again.cached_tokens > 2000) == (0, True)
    assert first.input_tokens == again.input_tokens


async def test_tokens_of_a_message_can_be_counted():
    async with running() as (_, client):
        counted = (await client.post("/v1/messages/count_tokens", json=HELLO)).json()
        used = (await client.post("/v1/messages", json=MESSAGES)).json()["usage"]
    real = json.loads(load("vllm", "messages-count-tokens").body)
    assert counted.keys() == real.keys()
    assert counted["input_tokens"] == used["input_tokens"]
    assert counted["context_management"] == {"original_input_tokens": counted["input_tokens"]}


async def test_a_system_prompt_and_tools_are_a_part_of_the_prompt():
    async with running() as (_, client):
        for path, field in (("/v1/messages", "system"), ("/v1/responses", "instructions")):
            used: list[int] = []
            for more in ({}, {field: "Be brief. " * 40}, {"tools": TOOLS}):
                answer = await client.post(path, json={**ASKED[path], **more})
                used.append(answer.json()["usage"]["input_tokens"])
            assert used[1] >= used[0] + 100
            assert used[2] > used[0]


async def test_a_stop_sequence_ends_a_message():
    async with running() as (_, client):
        body = {**MESSAGES, "stop_sequences": ["down"]}
        answer = (await client.post("/v1/messages", json=body)).json()
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "down")
    assert answer["content"] == [{"type": "text", "text": " the water runs "}]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/messages", HELLO, "body.max_tokens"),
        ("/v1/messages", {"max_tokens": 5}, "body.messages"),
        ("/v1/messages/count_tokens", {}, "body.messages"),
        ("/v1/responses", {}, "body.input"),
        ("/v1/responses", {"input": 5}, "body.input"),
        ("/v1/responses", {"input": "x", "max_output_tokens": 0}, "max_tokens"),
    ],
)
async def test_what_is_missing_is_named(path: str, body: dict[str, object], param: str | None):
    async with running() as (_, client):
        answer = await client.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("asked", "captured"),
    [({"model": "no-such-model"}, "err-unknown-model"), ({"messages": []}, "err-empty-messages")],
)
async def test_what_is_understood_and_refused_has_the_shape_of_anthropics_api(
    path: str, asked: dict[str, object], captured: str
):
    """By vLLM 0.32's own names for it, which are not Anthropic's, and with its status."""
    async with running(model="smollm2-135m-instruct") as (_, client):
        answer = await client.post(path, json={**MESSAGES, **asked})
    real = load("vllm", captured)
    told = json.loads(real.body)["error"]
    assert answer.status_code == real.status
    assert answer.json() == {
        "type": "error",
        "error": {"type": told["type"], "message": told["message"]},
    }


async def test_a_message_without_room_is_refused_in_that_shape_too():
    async with running() as (_, client):
        answer = await client.post("/v1/messages", json={**HELLO, "max_tokens": 10**6})
        chatted = await chat(client, max_tokens=10**6)
    error = chatted.json()["error"]
    assert answer.status_code == 400
    assert answer.json()["error"] == {"type": "BadRequestError", "message": error["message"]}


async def test_a_body_that_is_not_of_the_apis_form_is_refused_in_the_shape_of_all_others():
    """vLLM 0.32 looks at it before it knows whose API it is."""
    async with running() as (_, client):
        answer = await client.post("/v1/messages", json={**HELLO, "max_tokens": -5})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {
            "message": "1 validation error:\n  {'type': 'value_error', 'loc': 'body.max_tokens', "
            "'msg': 'Value error, max_tokens must be positive', 'input': '-5', "
            "'ctx': {'error': ValueError('max_tokens must be positive')}}",
            "type": "Bad Request",
            "param": "body.max_tokens",
            "code": 400,
        }
    }


@pytest.mark.parametrize(
    ("choice", "name"),
    [("required", "get_weather"), ({"type": "function", **TOOLS[1]}, "get_time")],
)
async def test_a_tool_that_must_be_called_is_called(choice: object, name: str):
    asked = {"tools": TOOLS, "tool_choice": choice}
    async with running(output_tokens=4) as (_, client):
        whole = (await chat(client, **asked)).json()["choices"][0]
        streamed = await chat(client, stream=True, **asked)
    call = whole["message"]["tool_calls"][0]["function"]
    assert (whole["finish_reason"], call["name"]) == ("tool_calls", name)
    assert json.loads(call["arguments"]) == {"text": " water runs down"}
    calls = [each["choices"][0]["delta"].get("tool_calls") for each in events(streamed)]
    functions = [each[0]["function"] for each in calls if each]
    assert functions[0] == {"name": name}
    pieces = [each["arguments"] for each in functions[1:]]
    assert "".join(pieces) == call["arguments"]
    reader = read(Endpoint.CHAT, streamed)
    assert (reader.content_chunks, reader.first_kind) == (4, ContentKind.TOOL_CALL)


async def test_the_first_event_of_a_call_is_that_of_a_real_one():
    async with running(output_tokens=4) as (_, client):
        asked = {"tools": TOOLS, "tool_choice": "required", "stream": True}
        ours = events(await chat(client, **asked))[1]["choices"][0]["delta"]
    captured = load("vllm", "variant2-tools-stream").events[1]
    real = json.loads(captured.removeprefix(b"data: "))["choices"][0]["delta"]
    ours["tool_calls"][0]["id"] = real["tool_calls"][0]["id"]
    assert ours == real


async def test_a_call_of_one_token_is_whole_and_one_that_is_cut_is_not():
    asked = {"tools": TOOLS, "tool_choice": "required"}
    async with running(output_tokens=1) as (_, client):
        one = (await chat(client, **asked)).json()["choices"][0]["message"]["tool_calls"][0]
        streamed = events(await chat(client, stream=True, **asked))[1]["choices"][0]["delta"]
    async with running() as (_, client):
        cut = (await chat(client, max_tokens=2, **asked)).json()["choices"][0]
    assert json.loads(one["function"]["arguments"]) == {"text": ""}
    assert streamed["tool_calls"][0]["function"] == one["function"]
    assert cut["finish_reason"] == "length"
    assert cut["message"]["tool_calls"][0]["function"]["arguments"] == '{"text": " water'


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tool_choice": "required"}, "tools"),
        ({"tool_choice": "any", "tools": TOOLS}, "tool_choice"),
        ({"tool_choice": "required", "tools": [5]}, "tools"),
        ({"tool_choice": {"function": {"name": "other"}}, "tools": TOOLS}, "tool_choice"),
    ],
)
async def test_a_tool_that_cannot_be_called_is_refused(asked: dict[str, object], param: str):
    async with running() as (_, client):
        answer = await chat(client, **asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_tools_left_to_the_model_are_not_called():
    async with running(output_tokens=2) as (_, client):
        for choice in ({}, {"tool_choice": "auto"}, {"tool_choice": None}):
            answer = (await chat(client, tools=TOOLS, **choice)).json()["choices"][0]
            assert answer["message"]["content"] == " the water"
