"""Requests of mixed kinds and lengths whose usage is known to their client, one by one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import msgspec

from tests.acceptance.clients import leave_after
from tests.live.up import HANG_S

WORDS = ("river", "dam", "turbine", "water", "gate", "flow", "level", "head", "valley", "lake")
PROMPT_WORDS = (3, 10, 20, 30, 40, 150)  # the last one fills a block of vLLM's prefix cache
CONCURRENCY = 8


@dataclass(frozen=True)
class Ask:
    """One request.

    `hidden` is a stream whose client does not ask for usage, so that the gateway does and takes
    it out again. Its figures are known all the same: an answer that may not end before
    `max_tokens` has so many, and `twin` is a request with the same prompt that shows its length.
    """

    endpoint: str
    prompt: str
    max_tokens: int
    streamed: bool = False
    hidden: bool = False
    twin: int | None = None
    leaves_after_chunks: int | None = None

    def body(self, model_id: str) -> dict[str, object]:
        """What is sent."""
        chat = [{"role": "user", "content": self.prompt}]
        prompt = {"prompt": self.prompt} if self.endpoint == "completions" else {"messages": chat}
        body: dict[str, object] = {"model": model_id, "max_tokens": self.max_tokens, **prompt}
        if self.streamed:
            body["stream"] = True
        if self.hidden or self.leaves_after_chunks is not None:
            body["ignore_eos"] = True
        elif self.streamed:
            body["stream_options"] = {"include_usage": True}
        return body


@dataclass(frozen=True)
class Told:
    """What the client of one request knows of its tokens. Of one that left early, `output_tokens`
    are the content chunks that were relayed."""

    output_tokens: int
    input_tokens: int | None = None


def plan(completed: int, left_early: int, *, seed: int, longest_tokens: int = 32) -> list[Ask]:
    """So many requests of either sort, mixed; `completed` is rounded down to a multiple of 6."""
    rng = random.Random(seed)
    asks: list[Ask] = []
    for number in range(completed // 6):
        for endpoint in ("chat/completions", "completions"):
            words = " ".join(rng.choices(WORDS, k=rng.choice(PROMPT_WORDS)))
            # Numbered, so that no other prompt is the same; a twin must come with its own.
            prompt = f"{number}: {words}"
            twin = len(asks)
            limits = [rng.randint(1, longest_tokens) for _ in range(3)]
            asks += [
                Ask(endpoint, prompt, limits[0]),
                Ask(endpoint, prompt, limits[1], streamed=True),
                Ask(endpoint, prompt, limits[2], streamed=True, hidden=True, twin=twin),
            ]
    for number in range(left_early):
        endpoint = ("chat/completions", "completions")[number % 2]
        prompt = f"Leaving {number}: " + " ".join(rng.choices(WORDS, k=rng.choice(PROMPT_WORDS)))
        chunks = rng.randint(0, 20)
        asks.append(Ask(endpoint, prompt, 600, streamed=True, leaves_after_chunks=chunks))
    return asks


async def run(url: str, model_id: str, asks: Sequence[Ask], *, seed: int) -> list[Told]:
    """Ask all of them, in random order and `CONCURRENCY` at a time; answers in the given order."""
    order = list(range(len(asks)))
    random.Random(seed).shuffle(order)
    told: dict[int, Told] = {}
    async with httpx.AsyncClient(base_url=url, timeout=HANG_S, trust_env=False) as client:

        async def work() -> None:
            while order:
                number = order.pop()
                told[number] = await _ask(client, url, model_id, asks[number])

        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return [_complete(told, asks, number) for number in range(len(asks))]


def _complete(told: dict[int, Told], asks: Sequence[Ask], number: int) -> Told:
    twin = asks[number].twin
    if twin is None:
        return told[number]
    return Told(told[number].output_tokens, told[twin].input_tokens)


async def _ask(client: httpx.AsyncClient, url: str, model_id: str, ask: Ask) -> Told:
    body = ask.body(model_id)
    if ask.leaves_after_chunks is not None:
        return Told(await leave_after(url, ask.endpoint, body, chunks=ask.leaves_after_chunks))
    answer = await client.post(f"/v1/{ask.endpoint}", json=body)
    assert answer.status_code == 200, answer.text
    if not ask.streamed:
        return _usage(answer.json())
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert lines[-1] == "[DONE]", answer.text
    events = [msgspec.json.decode(line) for line in lines[:-1]]
    if not ask.hidden:
        return _usage(events[-1])
    assert not any(event.get("usage") for event in events)
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    return Told(ask.max_tokens)


def _usage(answer: dict) -> Told:
    usage = answer["usage"]
    return Told(usage["completion_tokens"], usage["prompt_tokens"])
