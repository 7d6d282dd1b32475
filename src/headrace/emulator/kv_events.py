"""What is in the prefix cache, told over ZMQ as vLLM tells it. Needs the extra `kv-events`.

    PUB     each batch: topic, sequence (8 bytes, big-endian), msgpack [time, [event, …], rank]
    ROUTER  replay: asked ["", sequence], answers ["", topic, sequence, payload] for each batch
            kept from there on, and at the end ["", "", sequence -1, ""]

Form and fields are those of vLLM 0.32 with `--kv-events-config '{"enable_kv_cache_events": true}'`
and integer block hashes; the hashes and token ids are this engine's own (`prompt`, `modelled`), the
same ids as `/tokenize` gives.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec
import zmq

from headrace.emulator.modelled import AllCleared, KvChange, PromptJob
from headrace.emulator.prompt import BYTES_PER_TOKEN, token_ids
from headrace.engine_model import BlocksRemoved

KEPT_BATCHES = 10_000
"""For replay, as in vLLM."""
UNSENT_BATCHES = 100_000
"""For a subscriber that reads too slowly; above it, batches are lost to it, as in vLLM."""

_END = (-1).to_bytes(8, "big", signed=True)
_encode = msgspec.msgpack.Encoder().encode


class KvEventPublisher:
    """One engine's publisher. Used from its event loop only, between `start` and `close`."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._events = self._context.socket(zmq.PUB)
        self._replay = self._context.socket(zmq.ROUTER)
        self._topic = b""
        self._sequence = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEPT_BATCHES)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.port = 0
        self.replay_port = 0

    def start(self, host: str, port: int, *, topic: str) -> None:
        """Publish on `port` and replay on the next one; with port 0 on free ones.

        Raises `OSError` when the address cannot be had.
        """
        self._topic = topic.encode()
        self._events.set_hwm(UNSENT_BATCHES)
        self.port = _bind(self._events, host, port)
        self.replay_port = _bind(self._replay, host, port + 1 if port else 0)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._replay.fileno(), self._answer)

    def close(self) -> None:
        """Stop at once."""
        if self._loop is not None:
            self._loop.remove_reader(self._replay.fileno())
        self._context.destroy(linger=0)

    def publish(self, changes: Sequence[KvChange]) -> None:
        """Tell what one step changed: a batch."""
        payload = _encode([time.time(), [event_of(change) for change in changes], 0])
        self._kept.append((self._sequence, payload))
        frames = (self._topic, self._sequence.to_bytes(8, "big"), payload)
        self._events.send_multipart(frames, zmq.NOBLOCK)  # a PUB socket never blocks: it drops
        self._sequence += 1

    def _answer(self) -> None:
        # The descriptor tells once of any number of messages, so all are to be taken.
        while self._replay.poll(0, zmq.POLLIN):
            client, *asked = self._replay.recv_multipart(zmq.NOBLOCK)
            if len(asked) == 2 and len(asked[1]) == 8:
                self._send_kept(client, int.from_bytes(asked[1], "big"))

    def _send_kept(self, client: bytes, since: int) -> None:
        for sequence, payload in self._kept:
            if sequence >= since:
                number = sequence.to_bytes(8, "big")
                self._send(client, self._topic, number, payload)
        self._send(client, b"", _END, b"")

    def _send(self, client: bytes, topic: bytes, number: bytes, payload: bytes) -> None:
        """A ROUTER drops what a client does not take."""
        self._replay.send_multipart((client, b"", topic, number, payload), zmq.NOBLOCK)


def event_of(change: KvChange) -> dict[str, object]:
    """An event as vLLM 0.32 forms it: a map."""
    if isinstance(change, AllCleared):
        return {"type": "AllBlocksCleared"}
    if isinstance(change, BlocksRemoved):
        return {
            "type": "BlockRemoved",
            "block_hashes": change.blocks,
            "medium": "GPU",
            "group_idx": 0,
        }
    job = change.job
    assert isinstance(job, PromptJob)
    first, end, size = change.first, change.end, job.block_tokens
    text = job.generation.prompt[first * size * BYTES_PER_TOKEN : end * size * BYTES_PER_TOKEN]
    return {
        "type": "BlockStored",
        "block_hashes": change.blocks,
        "parent_block_hash": job.blocks[first - 1] if first else None,
        "token_ids": token_ids(text),
        "block_size": size,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None] * (end - first),
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }


def _bind(socket: zmq.Socket[bytes], host: str, port: int) -> int:
    try:
        if not port:
            return socket.bind_to_random_port(f"tcp://{host}")
        socket.bind(f"tcp://{host}:{port}")
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror) from None
    return port
