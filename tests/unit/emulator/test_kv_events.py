"""KV events read back by a real subscriber, in the form of vLLM's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import msgspec
import pytest
import zmq

from headrace.core.latency import LatencyProfile
from headrace.emulator.engine import EmulatedEngine
from headrace.emulator.kv_events import KvEventPublisher
from headrace.emulator.modelled import ModelledTiming
from headrace.emulator.settings import EngineSettings
from headrace.engine_model import EngineSpec
from tests.plain_http import NO_TRUST_STORE

SPEC = EngineSpec(LatencyProfile("p", "made up", 0.001, 1e-6), 640)
PROMPT = "0123456789abcdef" * 40


@asynccontextmanager
async def publishing(
    wake_s: float | None = None,
) -> AsyncIterator[tuple[KvEventPublisher, httpx.AsyncClient]]:
    publisher = KvEventPublisher()
    timing = ModelledTiming(SPEC, on_kv=publisher.publish)
    engine = EmulatedEngine(EngineSettings(max_context_tokens=640, wake_s=wake_s), timing)
    port = await engine.start("127.0.0.1", 0)
    publisher.start("127.0.0.1", 0, topic="kv@here@m")
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False, verify=NO_TRUST_STORE
    ) as client:
        try:
            yield publisher, client
        finally:
            await engine.close()
            publisher.close()


@contextmanager
def socket(kind: int, port: int) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as made:
        made.linger = 0
        made.connect(f"tcp://127.0.0.1:{port}")
        yield made


async def received(made: zmq.Socket[bytes]) -> list[bytes]:
    while not made.poll(0):  # the publisher lives on this very event loop
        await asyncio.sleep(0.01)
    return made.recv_multipart()


async def complete(client: httpx.AsyncClient, prompt: str) -> dict[str, Any]:
    answer = await client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 2})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_subscriber_hears_what_is_stored_and_removed():
    async with publishing() as (publisher, client):
        with socket(zmq.SUB, publisher.port) as subscriber:
            subscriber.subscribe(b"kv@")
            await asyncio.sleep(0.2)  # a subscription takes its time; a PUB socket does not wait
            await complete(client, PROMPT)
            topic, number, payload = await received(subscriber)
            tokens = (await client.post("/tokenize", json={"prompt": PROMPT})).json()["tokens"]
            await complete(client, "another " * 300)
            events: list[dict[str, Any]] = []
            while not any(each["type"] == "BlockRemoved" for each in events):
                events += msgspec.msgpack.decode((await received(subscriber))[2])[1]
    assert topic == b"kv@here@m"
    assert number == (0).to_bytes(8, "big")
    at_s, (stored,), rank = msgspec.msgpack.decode(payload)
    assert at_s > 1.7e9
    assert rank == 0
    hashes = stored.pop("block_hashes")
    assert len(hashes) == len(tokens) // 16 == 10
    assert all(isinstance(each, int) and 0 <= each < 2**64 for each in hashes)
    assert stored == {
        "type": "BlockStored",
        "parent_block_hash": None,
        "token_ids": tokens[:160],
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None] * 10,
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }
    removed = next(each for each in events if each["type"] == "BlockRemoved")
    assert removed["block_hashes"][0] == hashes[-1]
    assert {**removed, "block_hashes": []} == {
        "type": "BlockRemoved",
        "block_hashes": [],
        "medium": "GPU",
        "group_idx": 0,
    }


async def test_a_subscriber_hears_that_all_is_forgotten():
    """As of a real engine whose prefix cache is reset, and it is when it falls asleep."""
    async with publishing(wake_s=0.0) as (publisher, client):
        with socket(zmq.SUB, publisher.port) as subscriber:
            subscriber.subscribe(b"kv@")
            await asyncio.sleep(0.2)  # a subscription takes its time; a PUB socket does not wait
            await complete(client, PROMPT)
            assert (await client.post("/sleep?level=1")).status_code == 200
            event: dict[str, Any] = {"type": "BlockStored"}
            while event["type"] == "BlockStored":
                event = msgspec.msgpack.decode((await received(subscriber))[2])[1][-1]
            assert event == {"type": "AllBlocksCleared"}


@pytest.mark.parametrize(("since", "expected"), [(0, [0, 1, 2, -1]), (2, [2, -1]), (9, [-1])])
async def test_what_was_missed_is_replayed(since: int, expected: list[int]):
    async with publishing() as (publisher, client):
        for seed in range(3):
            await complete(client, f"{seed}{PROMPT}")
        with socket(zmq.DEALER, publisher.replay_port) as dealer:
            dealer.send_multipart((b"", b"nonsense for a number"))
            dealer.send_multipart((b"", since.to_bytes(8, "big")))
            told = [await received(dealer) for _ in expected]
    assert [int.from_bytes(each[2], "big", signed=True) for each in told] == expected
    assert told[-1] == [b"", b"", b"\xff" * 8, b""]
    assert all(each[1] == b"kv@here@m" and each[3] for each in told[:-1])


async def test_a_port_that_is_taken_is_told():
    async with publishing() as (publisher, _):
        other = KvEventPublisher()
        with pytest.raises(OSError, match="in use"):
            other.start("127.0.0.1", publisher.port, topic="")
        other.close()
