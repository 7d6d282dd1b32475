"""Faults of the gateway's own: a request ends all the same, and the clock of the others goes on."""

import asyncio

from headrace.gateway.settings import Timeouts
from headrace.gateway.stored import StoredResponses
from tests.gateway.conftest import run_gateway
from tests.scripted import chat_chunk

HANG_S = 20.0


def broken(*args, **named):
    raise RuntimeError("a fault of ours")


async def test_one_in_reading_a_whole_answer_leaves_nobody_waiting(monkeypatch, caplog):
    async def script(received, peer):
        await peer.json({"id": "resp_1"})

    async with asyncio.timeout(HANG_S), run_gateway(script) as rig:
        body = {"model": "m", "input": "hi"}
        assert (await rig.client.post("/v1/responses", json=body)).status_code == 200
        monkeypatch.setattr(StoredResponses, "remember", broken)
        # The head is known by now: its answer is handed over at once, past the parser.
        assert (await rig.client.post("/v1/responses", json=body)).status_code == 502
        assert "could not be handled" in caplog.text
        assert rig.plane.in_flight == 0


async def test_one_in_counting_does_not_stop_the_deadlines(monkeypatch, caplog):
    async def script(received, peer):
        await peer.start_stream()
        await peer.event(chat_chunk("one"))
        await peer.gone.wait()

    timeouts = Timeouts(between_bytes_s=0.3)
    async with asyncio.timeout(HANG_S), run_gateway(script, timeouts=timeouts) as rig:
        monkeypatch.setattr(rig.telemetry, "tick", broken)
        answer = await rig.chat(stream=True)
        assert "stalled" in answer.text
        assert "could not be counted" in caplog.text
