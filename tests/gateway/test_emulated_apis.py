"""Every API of an emulated engine through the gateway: what passes, and what is counted of it."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.core.events import ReplicaChanged
from headrace.gateway.metrics.exporter import render, take_snapshot
from headrace.gateway.telemetry import Telemetry
from tests.gateway.conftest import run_gateway
from tests.unit.emulator.asked import read_metrics, running

CHAT = {"messages": [{"role": "user", "content": "hello there"}]}
TOOL = {"type": "function", "function": {"name": "get_weather"}}
ASKED: dict[str, tuple[str, dict[str, object]]] = {
    "chat": ("/v1/chat/completions", {**CHAT, "max_tokens": 6}),
    "tool": (
        "/v1/chat/completions",
        {**CHAT, "max_tokens": 6, "tools": [TOOL], "tool_choice": "required"},
    ),
    "completion": ("/v1/completions", {"prompt": "hello there", "max_tokens": 6}),
    "message": ("/v1/messages", {**CHAT, "max_tokens": 6}),
    "response": ("/v1/responses", {"input": "hello there", "max_output_tokens": 6}),
}


def tokens(telemetry: Telemetry) -> dict[str, float]:
    page, _ = render(take_snapshot(telemetry, time.monotonic()), "")
    return {
        sample.labels["token_type"]: sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name == "llm_tokens_processed_total"
    }


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", ASKED)
async def test_an_answer_passes_and_its_tokens_are_counted(name: str, stream: bool):
    path, body = ASKED[name]
    asked = {**body, "model": "m", "stream": stream}
    async with running(model="m") as (_, direct), run_gateway() as rig:
        rig.plane.apply(ReplicaChanged("r0", "p", str(direct.base_url), ready=True))
        through = await rig.client.post(path, json=asked)
        counted = tokens(rig.telemetry)
        reading = await read_metrics(direct)
    assert through.status_code == 200
    assert counted["output"] == reading.output_tokens_total == 6
    assert 0 < counted["input"] == reading.input_tokens_total
