"""How busy the memory of an emulated engine is, from its streams to what a scaler says of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.serve_process import HANG_S, Serve, headrace, serving

STEP_S, WEIGHTS, KV, PEAK = 0.02, 1e9, 1e5, 1e11
ENGINE = f"""\
name: emulated
per_step_s: {STEP_S}
per_prefill_token_s: 1.0e-6
kv_capacity_tokens: 100000
"""
MEMORY = f"""\
memory_bytes_per_s: {PEAK:.1e}
weight_bytes_per_step: {WEIGHTS:.1e}
kv_bytes_per_token: {KV:.1e}
"""
CONFIG = """
grace: 0s
pools:
  - name: emu
    model: emulated
    engine: vllm
    profile: {told}
    start:
      command: [headrace, engine, --port, "{{port}}", --profile, {engine}]
scaling:
  pools:
    emu: {{max_replicas: 1, warm_replicas: 1, tick: 1s}}
"""


async def streamed(gateway: Serve) -> None:
    body = {
        "model": "emulated",
        "stream": True,
        "max_tokens": 60,
        "messages": [{"role": "user", "content": "How busy are you? " * 100}],
    }
    answer = await gateway.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200


async def scaled(gateway: Serve) -> dict[str, Any]:
    return (await gateway.control_client.get("/api/v1/scaler")).json()["pools"][0]


def note(pool: dict[str, Any]) -> str:
    """What tells how busy its memory is, or why nothing does; "" before anything is decided."""
    plan = pool["plan"]
    return plan["memory"]["note"] if plan is not None and plan["memory"] is not None else ""


def shows_a_step(pool: dict[str, Any]) -> bool:
    return any(each["decode_step_s"] is not None for each in pool["replicas"])


def profiles(folder: Path) -> tuple[Path, Path]:
    """The engine's own, and the same with what its memory moves."""
    plain, told = folder / "engine.yaml", folder / "told.yaml"
    plain.write_text(ENGINE)
    told.write_text(ENGINE + MEMORY)
    return plain, told


async def test_streams_and_a_profile_tell_how_busy_the_memory_is(tmp_path: Path):
    engine, told = profiles(tmp_path)
    async with serving(tmp_path, CONFIG.format(told=told, engine=engine)) as gateway:
        async with asyncio.timeout(HANG_S):
            while "streams show" not in note(pool := await scaled(gateway)):
                await asyncio.gather(*(streamed(gateway) for _ in range(3)))
        memory, replica = pool["plan"]["memory"], pool["replicas"][0]
        # No step is shorter than the engine's; tokens of two may come in one piece.
        assert replica["decode_step_s"] > 0.9 * STEP_S
        tokens = replica["decoding_context_tokens"]
        assert 0.0 < tokens < 3 * 1500
        assert 0.0 < memory["weights_ratio"] < memory["ratio"] < 1.0
        name = 'headrace_scaling_memory_bandwidth_ratio{pool="emu",source="modelled"}'
        assert 0.0 < await gateway.metric(name) < 1.0
        said = await headrace("why", "--scaling", "--control", gateway.control)
        text = " ".join((await said.communicate())[0].decode().split())
        assert "of the peak, modelled: streams show steps of" in text


async def test_a_profile_without_bytes_leaves_it_unknown_and_why_says_so(tmp_path: Path):
    engine, _ = profiles(tmp_path)
    async with serving(tmp_path, CONFIG.format(told=engine, engine=engine)) as gateway:
        async with asyncio.timeout(HANG_S):
            while not note(pool := await scaled(gateway)) or not shows_a_step(pool):
                await asyncio.gather(*(streamed(gateway) for _ in range(3)))
        assert pool["plan"]["memory"]["ratio"] is None
        said = await headrace("why", "--scaling", "--control", gateway.control)
        text = " ".join((await said.communicate())[0].decode().split())
        assert "memory bandwidth: not known: no DCGM, and what seconds are reckoned by" in text
        assert "(profile emulated) tells no bytes" in text


@pytest.mark.parametrize("field", ["memory_bytes_per_s", "kv_bytes_per_token"])
async def test_bytes_that_cannot_be_are_refused_by_name(tmp_path: Path, field: str):
    file = tmp_path / "wrong.yaml"
    file.write_text(ENGINE + f"{field}: -1.0\n")
    config = tmp_path / "headrace.yaml"
    config.write_text(CONFIG.format(told=file, engine=file))
    process = await headrace("check", config)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert field in errors.decode()
