"""How many sequences an emulated vLLM runs side by side, learned from live traffic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.gateway.serve_process import HANG_S, Serve, serving

LIMIT, CLIENTS = 4, 10
ENGINE = f"""\
name: emulated
per_step_s: 0.01
per_prefill_token_s: 1.0e-6
kv_capacity_tokens: 1000000
max_sequences: {LIMIT}
"""
CONFIG = """
grace: 0s
scrape: {{interval: 100ms}}
pools:
  - name: emu
    model: emulated
    engine: vllm
    start:
      command: [headrace, engine, --port, "{{port}}", --profile, {engine}]
scaling:
  pools:
    emu: {{max_replicas: 1, warm_replicas: 1}}
"""


async def ask(gateway: Serve, tokens: int) -> None:
    body = {
        "model": "emulated",
        "stream": True,
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": "How many are you?"}],
    }
    answer = await gateway.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200


async def ask_again_and_again(gateway: Serve, tokens: int) -> None:
    while True:
        await ask(gateway, tokens)


async def shown(gateway: Serve) -> tuple[Any, Any]:
    fleet = (await gateway.control_client.get("/api/v1/fleet")).json()
    (replica,) = fleet["pools"][0]["replicas"]
    return replica["max_sequences"], replica["max_sequences_learned"]


async def test_it_is_learned_while_more_ask_than_run(tmp_path: Path):
    engine = tmp_path / "engine.yaml"
    engine.write_text(ENGINE)
    async with serving(tmp_path, CONFIG.format(engine=engine)) as gateway:
        await ask(gateway, 2)
        assert await shown(gateway) == (None, False)
        clients = [
            asyncio.create_task(ask_again_and_again(gateway, 20 + 3 * place))
            for place in range(CLIENTS)
        ]
        async with asyncio.timeout(HANG_S):
            while (known := await shown(gateway))[0] is None:
                await asyncio.sleep(0.05)
        assert known == (LIMIT, True)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
