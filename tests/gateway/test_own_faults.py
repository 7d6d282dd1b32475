"""Faults of the gateway's own: a request ends all the same, and the clock of the others goes on."""

import asyncio
import errno
import os

import pytest

from headrace.core.model import ReplicaState
from headrace.edges.http.address import Address
from headrace.edges.http.upstream_connection import UpstreamConnection
from headrace.gateway.settings import Timeouts
from headrace.gateway.stored import StoredResponses
from tests.gateway.conftest import run_gateway
from tests.scripted import chat_chunk

HANG_S = 20.0


def broken(*args, **named):
    raise RuntimeError("a fault of ours")


@pytest.mark.interpreted
async def test_one_in_reading_a_whole_answer_leaves_nobody_waiting(monkeypatch, caplog):
    async def script(received, peer):
        await peer.json({"id": "resp_1"})

    async with asyncio.timeout(HANG_S), run_gateway(script) as rig:
        body = {"model": "m", "input": "hi"}
        assert (await rig.client.post("/v1/responses", json=body)).status_code == 200
        monkeypatch.setattr(StoredResponses, "remember", broken)
        # The head is known by now: its answer is handed over at once, past the parser.
        assert (await rig.client.post("/v1/responses", json=body)).status_code == 500
        assert "could not be handled" in caplog.text
        assert rig.plane.in_flight == 0


@pytest.mark.interpreted
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOBUFS])
async def test_a_connection_that_is_lost_by_it_does_not_eject_a_replica(number, monkeypatch):
    async def script(received, peer):
        await peer.json({"choices": []})

    def lose(connection, call):
        connection.call, connection.sink = call, call.sink
        connection.connection_lost(OSError(number, os.strerror(number)))

    async with asyncio.timeout(HANG_S), run_gateway(script) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(UpstreamConnection, "start", lose)
            for _ in range(10):
                answer = await rig.chat()
                assert answer.status_code == 500
                assert os.strerror(number) in answer.json()["error"]["message"]
        assert rig.fleet.replicas["r0"].state is ReplicaState.READY
        assert (await rig.chat()).status_code == 200


@pytest.mark.interpreted
async def test_a_lack_of_descriptors_does_not_eject_a_replica(monkeypatch):
    async def script(received, peer):
        await peer.json({"choices": []})

    async def connect(address, protocol):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with asyncio.timeout(HANG_S), run_gateway(script) as rig:
        with monkeypatch.context() as patch:
            patch.setattr(Address, "connect", connect)
            for _ in range(10):
                assert (await rig.chat()).status_code == 500
        assert rig.fleet.replicas["r0"].state is ReplicaState.READY
        assert (await rig.chat()).status_code == 200


@pytest.mark.interpreted
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
