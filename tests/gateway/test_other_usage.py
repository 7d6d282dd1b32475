"""Tokens of endpoints that are not known by name: what an answer tells of them is counted."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from headrace.core.model import Endpoint
from headrace.engines.registry import dialect
from tests.gateway.conftest import Rig, run_gateway

TRANSCRIBE, RERANK = "/v1/audio/transcriptions", "/v1/rerank"
IN_TOKENS = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
    "output_tokens": 45,
    "total_tokens": 59,
}
IN_SECONDS = {"type": "duration", "seconds": 9}


async def sent(rig: Rig, path: str, **fields: str) -> None:
    form: dict[str, Any] = {"data": {"model": "m", **fields}, "files": {"file": b"RIFF"}}
    asked: dict[str, Any] = {"json": {"model": "m", "query": "q"}}
    if path == TRANSCRIBE:
        asked = form
    assert (await rig.client.post(path, **asked)).status_code == 200


def counted(rig: Rig) -> tuple[int, int, int]:
    """Input and output tokens, and answers whose usage is missing."""
    series = next(iter(rig.telemetry.series))
    missing = series.usage_missing.get(Endpoint.OTHER, 0)
    return series.input_tokens, int(series.output_tokens.value), missing


@pytest.mark.parametrize(
    ("path", "usage", "expected"),
    [
        (TRANSCRIBE, IN_TOKENS, (14, 45, 0)),
        (TRANSCRIBE, IN_SECONDS, (0, 0, 1)),
        (TRANSCRIBE, None, (0, 0, 1)),
        (RERANK, {"total_tokens": 56}, (56, 0, 0)),
        (RERANK, {"prompt_tokens": 50, "total_tokens": 56}, (50, 0, 0)),
        (RERANK, None, (0, 0, 0)),
        ("/v1/images/generations", {"input_tokens": 9, "output_tokens": 1056}, (9, 1056, 0)),
    ],
)
async def test_of_a_whole_answer(path: str, usage: object, expected: tuple[int, int, int]):
    async def script(_received, peer):
        await peer.json({"text": "Hello.", "usage": usage})

    async with run_gateway(script) as rig:
        await sent(rig, path)
        assert counted(rig) == expected


async def test_of_a_transcription_as_plain_text():
    async def script(_received, peer):
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\n")
        await peer.send(b"Hello.")

    async with run_gateway(script) as rig:
        await sent(rig, TRANSCRIBE, response_format="text")
        assert counted(rig) == (0, 0, 1)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ({"type": "transcript.text.done", "text": "Hello.", "usage": IN_TOKENS}, (14, 45, 0)),
        ({"object": "transcription.chunk", "choices": [], "usage": IN_SECONDS}, (0, 0, 1)),
        (
            {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}},
            (3, 5, 0),
        ),
    ],
    ids=["OpenAI's", "in seconds", "chunks"],
)
async def test_of_a_stream(last: dict[str, object], expected: tuple[int, int, int]):
    async def script(_received, peer):
        await peer.start_stream()
        await peer.event({"type": "transcript.text.delta", "delta": 'the "usage" of it'})
        await peer.event(last)
        await peer.end_stream()

    async with run_gateway(script) as rig:
        await sent(rig, TRANSCRIBE, stream="true")
        assert counted(rig) == expected
        [series] = rig.telemetry.series
        # Its prompt is seconds of audio: what it took says nothing of a prompt's tokens.
        assert sum(series.ttft.counts) == sum(series.tpot.counts) == sum(series.itl.counts) == 0
        assert series.ttft_recent.quantile(0.95, time.monotonic()) is None


def test_a_stored_response_that_is_cancelled_is_not_counted_again():
    """As `/v1/responses/{id}/cancel` answers."""
    body = json.dumps({"object": "response", "id": "resp_1", "usage": IN_TOKENS}).encode()
    assert dialect("vllm").read_body(Endpoint.OTHER, body).usage is None
    assert dialect("vllm").read_body(Endpoint.RESPONSES, body).usage is not None
