"""Log probabilities of an emulated engine's answers, in the shape of vLLM 0.32.0."""

from __future__ import annotations

from itertools import chain
from math import exp
from typing import Any

import pytest

from tests.unit.emulator.asked import chat, events, running


def of_answer(answer: Any) -> list[dict[str, Any]]:
    return answer.json()["choices"][0]["logprobs"]["content"]


async def test_a_chat_tells_each_token_and_what_else_was_likely():
    async with running() as (_, client):
        told = of_answer(await chat(client, max_tokens=3, logprobs=True, top_logprobs=2))
    assert [each["token"] for each in told] == [" the", " water", " runs"]
    assert [bytes(each["bytes"]).decode() for each in told] == [" the", " water", " runs"]
    for each in told:
        assert 0 < exp(each["logprob"]) <= 1
        assert [*each] == ["token", "logprob", "bytes", "top_logprobs"]
        alternatives = [{**other, "top_logprobs": []} for other in each["top_logprobs"]]
        assert len(alternatives) == 2
        assert {**each, "top_logprobs": []} in alternatives
        assert sum(exp(other["logprob"]) for other in alternatives) <= 1


async def test_a_stream_tells_them_token_by_token_in_each_choice():
    asked = {"max_tokens": 3, "logprobs": True, "top_logprobs": 1, "n": 2}
    async with running() as (_, client):
        whole = (await chat(client, **asked)).json()["choices"]
        chunks = events(await chat(client, **asked, stream=True))
    for index in (0, 1):
        own = [each["choices"][0] for each in chunks if each["choices"][0]["index"] == index]
        told = [each["logprobs"]["content"] for each in own if each["delta"].get("content")]
        assert [len(each) for each in told] == [1, 1, 1]
        assert [*chain(*told)] == whole[index]["logprobs"]["content"]


async def test_a_chat_need_not_be_told_what_else_was_likely():
    async with running() as (_, client):
        told = of_answer(await chat(client, max_tokens=1, logprobs=True))
        unasked = (await chat(client, max_tokens=1, top_logprobs=None)).json()
        declined = (await chat(client, max_tokens=1, logprobs=False)).json()
    assert told[0]["top_logprobs"] == []
    assert unasked["choices"][0]["logprobs"] is None
    assert declined["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(("most", "dicts"), [(0, 1), (3, 3)])
async def test_a_completion_tells_them_as_lists(most: int, dicts: int):
    body = {"prompt": "x", "max_tokens": 3, "logprobs": most}
    async with running() as (_, client):
        choice = (await client.post("/v1/completions", json=body)).json()["choices"][0]
        streamed = events(await client.post("/v1/completions", json={**body, "stream": True}))
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert [
        choice["text"][at:].startswith(word)
        for at, word in zip(told["text_offset"], told["tokens"], strict=True)
    ] == [True] * 3
    assert [len(each) for each in told["top_logprobs"]] == [dicts] * 3
    for word, logprob, top in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
    ):
        assert top[word] == logprob
    for name, values in told.items():
        assert [*chain(*(each["choices"][0]["logprobs"][name] for each in streamed))] == values
