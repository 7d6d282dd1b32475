"""A response made in the background is paid for when it is looked up: nobody is told before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.core.model import Usage
from headrace.gateway.stored import StoredResponses
from tests.gateway.conftest import Rig, run_gateway
from tests.scripted import Peer, Received
from tests.waiting import until

USED = {"input_tokens": 900, "output_tokens": 400, "total_tokens": 1300}


def response(status: str, usage: object = None) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "status": status, "usage": usage}


class Engine:
    """Answers with what was last put down, whole or in chunks."""

    def __init__(self, *, chunked: bool) -> None:
        self.answer = response("queued")
        self._chunked = chunked

    async def __call__(self, _received: Received, peer: Peer) -> None:
        if not self._chunked:
            await peer.json(self.answer)
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        await peer.send(head + b"transfer-encoding: chunked\r\n\r\n")
        body = json.dumps(self.answer).encode()
        await peer.chunk(body[:20])
        await peer.chunk(body[20:])
        await peer.send(b"0\r\n\r\n")


def counted(rig: Rig) -> tuple[int, int]:
    (series,) = rig.telemetry.series
    return series.input_tokens, int(series.output_tokens.value)


async def made(rig: Rig, **more: object) -> None:
    body = {"model": "m", "input": "tell me a story", "background": True, **more}
    assert (await rig.client.post("/v1/responses", json=body)).status_code == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "in chunks"])
async def test_its_usage_is_counted_once_when_it_is_told(chunked: bool):
    engine = Engine(chunked=chunked)
    async with run_gateway(engine) as rig:
        await made(rig)
        estimated, output = counted(rig)
        assert (0 < estimated < 100, output) == (True, 0)
        await rig.client.get("/v1/responses/resp_1")
        assert counted(rig) == (estimated, 0)
        engine.answer = response("completed", USED)
        for _ in range(3):
            answer = await rig.client.get("/v1/responses/resp_1")
            assert answer.json() == engine.answer
            assert counted(rig) == (900, 400)


def event(name: str, **members: object) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **members})}\n\n"


async def test_a_look_up_that_is_streamed_pays_with_its_last_event_once():
    """As vLLM replays one: every event from the beginning, the usage with the last."""
    engine, begun = Engine(chunked=False), response("queued")
    events = [event("response.created", response=begun)]
    events += [event("response.output_text.delta", delta=word) for word in ("one ", "two ")]
    last = event("response.completed", response=response("completed", USED))

    async def answer(received: Received, peer: Peer) -> None:
        if received.target.startswith("/v1/responses/resp_1?stream=true"):
            await peer.start_stream()
            for each in (*events, *([last] if whole else [])):
                await peer.chunk(each.encode())
            await peer.end_stream(done=False)
        else:
            await engine(received, peer)

    async with run_gateway(answer) as rig:
        await made(rig)
        estimated, _ = counted(rig)
        for whole, want in ((False, (estimated, 0)), (True, (900, 400)), (True, (900, 400))):
            told = await rig.client.get("/v1/responses/resp_1?stream=true")
            assert told.text == "".join([*events, *([last] if whole else [])])
            assert counted(rig) == want
        engine.answer = response("completed", USED)
        await rig.client.get("/v1/responses/resp_1")
        assert counted(rig) == (900, 400)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_what_is_made_after_the_client_of_its_stream_left_is_counted_once(streamed: bool):
    """A background response goes on; its client comes back for the rest."""
    begun = event("response.created", response=response("in_progress"))
    words = [event("response.output_text.delta", delta=word) for word in ("one ", "two ")]
    last = event("response.completed", response=response("completed", USED))

    async def answer(received: Received, peer: Peer) -> None:
        if received.method == "POST":
            await peer.start_stream()
            for each in (begun, *words):
                await peer.chunk(each.encode())
            await peer.gone.wait()
        elif streamed:
            await peer.start_stream()
            for each in (begun, *words, last):
                await peer.chunk(each.encode())
            await peer.end_stream(done=False)
        else:
            await peer.json(response("completed", USED))

    async with run_gateway(answer) as rig:
        body = {"model": "m", "input": "a story", "background": True, "stream": True}
        async with rig.client.stream("POST", "/v1/responses", json=body) as told:
            seen = ""
            async for text in told.aiter_text():
                seen += text
                if "two " in seen:
                    break
        (series,) = rig.telemetry.series
        await until(lambda: series.in_flight == 0)
        estimated, output = counted(rig)
        assert (0 < estimated < 100, output) == (True, 2)
        for _ in range(2):
            query = "?stream=true" if streamed else ""
            assert (await rig.client.get(f"/v1/responses/resp_1{query}")).status_code == 200
            assert counted(rig) == (900, 400)


async def test_one_that_is_cancelled_is_paid_as_far_as_it_came():
    engine = Engine(chunked=False)
    async with run_gateway(engine) as rig:
        await made(rig)
        engine.answer = response("cancelled", {**USED, "output_tokens": 30})
        await rig.client.post("/v1/responses/resp_1/cancel")
        assert counted(rig) == (900, 30)


async def test_one_that_was_told_at_once_is_not_paid_for_again():
    engine = Engine(chunked=False)
    async with run_gateway(engine) as rig:
        engine.answer = response("completed", USED)
        await made(rig, background=False)
        await rig.client.get("/v1/responses/resp_1")
        assert counted(rig) == (900, 400)


def test_what_is_owed_is_forgotten_with_its_holder():
    stored = StoredResponses(1)
    stored.remember("resp_1", "r0", "m", owed=Usage(5))
    assert stored.owes(b"/v1/responses/resp_1")
    assert not stored.owes(b"/v1/responses/resp_2")
    stored.remember("resp_2", "r0", "m")
    assert not stored.owes(b"/v1/responses/resp_1")
