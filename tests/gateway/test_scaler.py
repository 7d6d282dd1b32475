"""`headrace scaler`, and a gateway that scales by itself, as processes, asked as KEDA asks."""

from __future__ import annotations

import asyncio
import signal
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from headrace.edges.keda.server import METRIC
from tests.gateway.serve_process import HANG_S, headrace, pool, serving
from tests.keda_client import KedaClient, reference
from tests.live.up import free_port
from tests.scripted import Peer, Received, ScriptedEngine

POLLS = 1000
ENGINE = "[headrace, engine, --port, '{port}', --model, m, --script, 'ttft=1ms,itl=1ms']"


class Scaler:
    """A running `headrace scaler`."""

    def __init__(self, process: Process, url: str, keda: str) -> None:
        self.process = process
        self.url = url
        self.keda = keda
        self.said: list[str] = []
        """Lines of stderr that were waited for."""

    async def reload(self, file: Path, text: str) -> str:
        """Change the file and have it read again; what was said when it was done."""
        assert self.process.stderr is not None
        file.write_text(text)
        begin = len(self.said)
        self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(HANG_S):
            while not any(
                end in line for line in self.said[begin:] for end in ("reloaded ", "stays as it")
            ):
                line = (await self.process.stderr.readline()).decode()
                assert line, f"it ended, having said: {self.said}"
                self.said.append(line.rstrip())
        return "\n".join(self.said[begin:])

    async def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        _, errors = await asyncio.wait_for(self.process.communicate(), HANG_S)
        return errors.decode()


@asynccontextmanager
async def scaling(
    folder: Path, gateways: str, scaled: str, keda_port: int
) -> AsyncIterator[Scaler]:
    """Run one until the block ends; its state stays in the folder."""
    file = folder / "scaler.yaml"
    file.write_text(
        "pools:\n  - {name: p, model: m, engine: vllm, replicas: ['http://127.0.0.1:1'], "
        "wait_for_replica: 60s}\n"
        f"scaling:\n  gateways: [{gateways}]\n  gathering: {{interval: 50ms}}\n"
        f"  listen: {{port: 0}}\n  keda: {{port: {keda_port}}}\n  state_file: state.json\n"
        f"  pools: {{p: {scaled}}}\n"
    )
    process = await headrace("scaler", "-c", file)
    assert process.stdout is not None
    try:
        lines = [(await process.stdout.readline()).decode().split() for _ in range(3)]
        yield Scaler(process, lines[0][1], lines[1][1])
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def engine() -> ScriptedEngine:
    """One that lists its model and is never asked anything else."""

    async def silent(_received: Received, _peer: Peer) -> None:
        raise AssertionError

    return ScriptedEngine(silent, models=({"id": "m"},))


async def known(client: KedaClient) -> tuple[float, int, bool]:
    """The first answer to a poll that is one."""
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                return await client.poll(reference(pool="p"))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.02)


async def right_polls(client: KedaClient, polls: int) -> list[float]:
    """Poll so often; seconds of each. Every one must be right."""
    took: list[float] = []
    for _ in range(polls):
        began = time.perf_counter()
        assert await client.poll(reference(pool="p"), 60.0) == (2.0, 2, True)
        took.append(time.perf_counter() - began)
    return took


async def polls_with_a_restart(folder: Path, polls: int) -> list[float]:
    """Half of the polls before the scaler is killed, half after another one has taken its place;
    a second one of another process says the same all the time.
    """
    port = free_port()
    async with engine() as one, serving(folder, f"pools:\n{pool(one)}") as gateway:
        # Pool p has one replica, and its scaler wants two.
        scaled = "{min_replicas: 2, max_replicas: 4}"
        second = folder / "second"
        second.mkdir()
        async with (
            scaling(second, gateway.control, scaled, 0) as twin,
            KedaClient(twin.keda) as asking_twin,
        ):
            async with scaling(folder, gateway.control, scaled, port) as scaler:
                async with KedaClient(scaler.keda) as client:
                    assert await known(client) == await known(asking_twin)
                    took = await right_polls(client, polls // 2)
                await scaler.end(signal.SIGKILL)
            async with (
                scaling(folder, gateway.control, scaled, port) as scaler,
                KedaClient(scaler.keda) as client,
            ):
                assert await known(client) == await known(asking_twin)
                took += await right_polls(client, polls // 2)
                assert "stopping" in await scaler.end()
    return took


@pytest.mark.acceptance
async def test_a_thousand_polls_are_right_with_a_restart_and_by_two_scalers(tmp_path: Path):
    took = sorted(await polls_with_a_restart(tmp_path, POLLS))
    print(f"\n1,000 polls of 3 calls: p50 {took[500] * 1e3:.1f} ms, p99 {took[990] * 1e3:.1f} ms")


async def test_a_changed_file_is_taken_up_and_a_bad_one_changes_nothing(tmp_path: Path):
    async def until(client: KedaClient, replicas: float) -> None:
        async with asyncio.timeout(HANG_S):
            while (await known(client))[0] != replicas:
                await asyncio.sleep(0.02)

    async with engine() as one, serving(tmp_path, f"pools:\n{pool(one)}") as gateway:
        scaled, file = "{min_replicas: 2, tick: 100ms}", tmp_path / "scaler.yaml"
        async with (
            scaling(tmp_path, gateway.control, scaled, 0) as scaler,
            KedaClient(scaler.keda) as client,
        ):
            text = file.read_text()
            await until(client, 2.0)
            more = text.replace("min_replicas: 2", "min_replicas: 3")
            assert "changed: scaling" in await scaler.reload(file, more)
            await until(client, 3.0)
            said = await scaler.reload(file, text.replace("min_replicas: 2", "min_replicas: -4"))
            assert "min_replicas" in said
            assert "the configuration stays as it was" in said
            elsewhere = more.replace(gateway.control, "http://127.0.0.1:1")
            assert "needs a restart: scaling.gateways" in await scaler.reload(file, elsewhere)
            nothing = await scaler.reload(file, text.partition("scaling:")[0])
            assert "no `scaling` section" in nothing
            await until(client, 3.0)
            assert "stopping" in await scaler.end()


async def test_the_scalers_own_profile_is_believed_while_its_gateways_have_none(tmp_path: Path):
    async def until(scaler: Scaler, source: str) -> None:
        async with asyncio.timeout(HANG_S), httpx.AsyncClient(trust_env=False) as client:
            while True:
                document = (await client.get(f"{scaler.url}/api/v1/scaler")).json()
                if document["pools"][0]["latency_source"] == source:
                    return
                await asyncio.sleep(0.02)

    async with engine() as one, serving(tmp_path, f"pools:\n{pool(one)}") as gateway:
        file = tmp_path / "scaler.yaml"
        async with scaling(tmp_path, gateway.control, "{tick: 100ms}", 0) as scaler:
            await until(scaler, "not learned yet")
            given = "engine: vllm, profile: h100-llama-3.1-8b"
            own = file.read_text().replace("engine: vllm", given)
            assert "changed: pools" in await scaler.reload(file, own)
            await until(scaler, "profile h100-llama-3.1-8b")
        file.write_text(own)
        process = await headrace("scaler", "-c", file)
        assert process.stdout is not None
        try:
            again = Scaler(process, (await process.stdout.readline()).decode().split()[1], "")
            await until(again, "profile h100-llama-3.1-8b")
            await again.end()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        told = f"pools:\n{pool(one, more=', profile: l4-llama-3.1-8b')}"
        assert "changed: pools" in await gateway.reload(told)
        async with scaling(tmp_path, gateway.control, "{tick: 100ms}", 0) as scaler:
            assert "changed: pools" in await scaler.reload(file, own)
            await until(scaler, "profile l4-llama-3.1-8b")


async def test_data_that_are_lost_leave_the_metric_and_fail_its_value(tmp_path: Path):
    async with engine() as one, serving(tmp_path, f"pools:\n{pool(one)}") as gateway:
        scaled = "{min_replicas: 2, tick: 100ms, stale: 300ms}"
        async with (
            # By its name, which is looked up.
            scaling(
                tmp_path, gateway.control.replace("127.0.0.1", "localhost"), scaled, 0
            ) as scaler,
            KedaClient(scaler.keda) as client,
        ):
            assert await known(client) == (2.0, 2, True)
            gateway.process.kill()
            async with asyncio.timeout(HANG_S):
                while True:
                    assert len(await client.metric_spec(reference(pool="p"))) == 1
                    try:
                        await client.metrics(reference(pool="p"), METRIC)
                    except grpc.aio.AioRpcError as error:
                        code = error.code()
                        break
                    await asyncio.sleep(0.05)
            assert code is grpc.StatusCode.UNAVAILABLE
            answer = httpx.get(f"{scaler.url}/api/v1/scaler/p", trust_env=False)
            assert answer.status_code == 503


async def test_the_first_request_at_zero_is_held_pushed_and_answered_by_a_replica_that_it_started(
    tmp_path: Path,
):
    text = f"""
grace: 0s
pools:
  - {{name: p, model: m, engine: vllm, wait_for_replica: 60s, start: {{command: {ENGINE}}}}}
scaling:
  gathering: {{interval: 100ms}}
  keda: {{port: 0}}
  pools: {{p: {{min_replicas: 0, warm_replicas: 0, max_replicas: 2, tick: 200ms}}}}
"""
    async with serving(tmp_path, text) as gateway:
        keda = (await gateway.prints("KEDA")).split()[1]
        async with KedaClient(keda) as client, asyncio.timeout(HANG_S):
            pushes = client.pushes(reference())
            assert await anext(pushes) is False  # nothing is asked, nothing is there
            assert (await client.poll(reference()))[1:] == (0, False)
            began = time.perf_counter()
            body = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
            asked = asyncio.create_task(gateway.client.post("/v1/chat/completions", json=body))
            assert await anext(pushes) is True
            print(f"\npushed {time.perf_counter() - began:.2f} s after the first held request")
            value, whole, active = await client.poll(reference())
            assert value >= 1.0
            assert whole >= 1
            assert active
            answer = await asked
            assert answer.status_code == 200
            assert answer.headers["x-headrace-replica"] == "p-0"
        view = (await gateway.control_client.get("/api/v1/scaler")).json()
        assert view["pools"][0]["scaled_by"] == "this process"
        wanted = await gateway.metric('headrace_scaling_wanted_replicas{pool="p"}')
        assert wanted >= 1.0
        why = await headrace("why", "--scaling", "--control", gateway.control, COLUMNS="80")
        told, _ = await why.communicate()
        assert "pool p" in told.decode()
        assert "1 ready" in told.decode()
        gateway.signal()
        assert (await gateway.ended())[0] == 0


async def test_a_sleeping_engine_is_woken_when_it_is_wanted(tmp_path: Path):
    def text(least: int, standby: int) -> str:
        return f"""
grace: 0s
pools:
  - name: p
    model: m
    engine: vllm
    start:
      command: {ENGINE.replace("]", ", --sleep-mode, 50ms]")}
      sleep: {{level: 1, timeout: 1m}}
scaling:
  gathering: {{interval: 100ms}}
  pools: {{p: {{min_replicas: {least}, warm_replicas: 1, max_replicas: 2, tick: 200ms,
    standby_replicas: {standby}}}}}
"""

    async with serving(tmp_path, text(1, 1)) as gateway:
        await gateway.hears("stands by, asleep")
        standby = 'headrace_scaling_replicas{phase="standby",pool="p"}'
        async with asyncio.timeout(HANG_S):
            while await gateway.metric(standby) != 1.0:
                await asyncio.sleep(0.05)
        await gateway.reload(text(2, 0))
        if not any("joins from standby, awake after" in line for line in gateway.said):
            await gateway.hears("joins from standby, awake after")
        wakes = 'headrace_scaling_wakes_total{outcome="joined",pool="p"}'
        assert await gateway.metric(wakes) == 1.0
        assert await gateway.metric('headrace_scaling_wake_seconds{pool="p"}') > 0.0
        body = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}
        asked = [gateway.client.post("/v1/chat/completions", json=body) for _ in range(16)]
        answers = await asyncio.gather(*asked)
        assert {each.status_code for each in answers} == {200}
        assert {each.headers["x-headrace-replica"] for each in answers} == {"p-0", "p-1"}
