"""A running `headrace serve` takes up another file on SIGHUP; nothing that runs is cut."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest

from headrace.gateway.keys import KeyRing, new_key
from tests.gateway.serve_process import HANG_S, HEALTH, LISTEN, Serve, headrace, pool, serving
from tests.scripted import ScriptedEngine, stream_words
from tests.waiting import until

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**CHAT, "stream": True}
RELOADS = 'headrace_config_reloads_total{result="%s"}'
WORDS = 40


class Waiting(ScriptedEngine):
    """Its streams begin, and end when they are let go."""

    def __init__(self, *models: str) -> None:
        super().__init__(self._stream, models=tuple({"id": model} for model in models or ("m",)))
        self.go = asyncio.Event()

    async def _stream(self, _received, peer):
        await peer.start_stream()
        await peer.event({"choices": [{"index": 0, "delta": {"content": "first"}}]})
        await self.go.wait()
        await peer.event({"choices": [{"index": 0, "delta": {"content": "last"}}]})
        await peer.end_stream()


async def three_words(_received, peer):
    await stream_words(peer, 3)


async def ask(serve: Serve, model: str = "m") -> int:
    answer = await serve.client.post("/v1/chat/completions", json={**STREAM, "model": model})
    return answer.status_code


async def until_served(serve: Serve, model: str) -> None:
    async with asyncio.timeout(HANG_S):
        while await ask(serve, model) != 200:
            await asyncio.sleep(0.02)


async def test_a_stream_outlives_its_pool(tmp_path):
    async with (
        Waiting() as old,
        ScriptedEngine(three_words, models=({"id": "n"},)) as new,
        serving(tmp_path, f"pools:\n{pool(old)}") as serve,
        serve.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
    ):
        pieces = answer.aiter_raw()
        got = await anext(pieces)
        said = await serve.reload(f"pools:\n{pool(new, 'q', 'n')}aliases: {{chat: n}}\n")
        assert "changed: pools, aliases" in said
        assert await ask(serve, "m") == 404
        await until_served(serve, "chat")
        replica = f'model_id="m",pool="p",replica="p/127.0.0.1:{old.port}"'
        assert await serve.metric(f"headrace_requests_in_flight{{{replica}}}") == 1
        old.go.set()
        async for piece in pieces:
            got += piece
        assert got.endswith(b"data: [DONE]\n\n")
        assert b'"last"' in got
        assert await serve.metric(RELOADS % "applied") == 1


async def test_a_replica_taken_off_the_list_drains(tmp_path):
    async with Waiting() as one, Waiting() as two:
        text = f"pools:\n  - {{name: p, model: m, engine: vllm, replicas: [{one.url}]}}\n"
        async with serving(tmp_path, text) as serve:
            async with serve.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
                pieces = answer.aiter_raw()
                got = await anext(pieces)
                await serve.reload(text.replace(one.url, two.url))
                two.go.set()
                await until_served(serve, "m")
                assert len([each for each in one.received if each.method == "POST"]) == 1
                fleet = (await serve.control_client.get("/api/v1/fleet")).json()
                states = {each["name"]: each["state"] for each in fleet["pools"][0]["replicas"]}
                assert states == {
                    f"p/127.0.0.1:{one.port}": "draining",
                    f"p/127.0.0.1:{two.port}": "ready",
                }
                one.go.set()
                async for piece in pieces:
                    got += piece
            assert got.endswith(b"data: [DONE]\n\n")


@asynccontextmanager
async def served_by_two(tmp_path):
    """A gateway with a pool of the first of two engines, its file's text, and both."""
    async with (
        ScriptedEngine(three_words, models=({"id": "m"},)) as one,
        ScriptedEngine(three_words, models=({"id": "m"},)) as two,
    ):
        text = f"pools:\n{pool(one)}"
        async with serving(tmp_path, text) as serve:
            yield serve, text, one, two


@asynccontextmanager
async def asking(serve, clients):
    """Ask again and again meanwhile; what it yields are the answers' statuses."""
    statuses: list[int] = []

    async def go_on() -> None:
        while True:
            statuses.append(await ask(serve))

    tasks = [asyncio.create_task(go_on()) for _ in range(clients)]
    yield statuses
    for task in tasks:
        task.cancel()


async def test_replicas_that_stay_never_stop_serving(tmp_path):
    async with served_by_two(tmp_path) as (serve, text, one, two):
        async with asking(serve, 1) as statuses:
            for round_trip in range(4):
                more = f", {two.url}" if round_trip % 2 else ""
                await serve.reload(text.replace(one.url, one.url + more))
        assert set(statuses) == {200}
        assert await serve.metric(RELOADS % "applied") == 4


async def test_replicas_that_are_all_replaced_serve_until_others_can(tmp_path):
    async with served_by_two(tmp_path) as (serve, text, one, two):
        async with asking(serve, 4) as statuses:
            for url in (two.url, one.url) * 4:
                await serve.reload(text.replace(one.url, url))
        assert set(statuses) == {200}


async def test_tiers_come_and_go(tmp_path):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}"
        async with serving(tmp_path, text) as serve:
            await until_served(serve, "m")
            serve.client.headers["x-headrace-tier"] = "gold"
            assert await ask(serve) == 400
            gold = "tiers: {gold: {ttft: 500ms}}\n"
            assert "changed: tiers" in await serve.reload(text + gold)
            answer = await serve.client.post("/v1/chat/completions", json=STREAM)
            assert answer.status_code == 200
            request_id = answer.headers["x-headrace-request-id"]
            told = (await serve.control_client.get(f"/api/v1/decisions/{request_id}")).json()
            assert (told["tier"], told["ttft_target_s"], told["held_s"]) == ("gold", 0.5, 0.0)
            assert "changed: admission" in await serve.reload(
                f"{text}{gold}admission: {{max_held: 7}}\n"
            )
            await serve.reload(text)
            assert await ask(serve) == 400


async def test_a_bad_file_changes_nothing_and_says_what_check_says(tmp_path):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}"
        async with serving(tmp_path, text) as serve:
            await serve.hears("is ready")
            bad = text.replace("engine: vllm", "engine: vlm") + "limits: {max_body: much}\n"
            said = await serve.reload(bad)
            check = await headrace("check", serve.file)
            _, errors = await asyncio.wait_for(check.communicate(), HANG_S)
            assert errors.decode().count("\n") == 2
            assert said.endswith(errors.decode() + "the configuration stays as it was")
            assert await ask(serve) == 200
            assert await serve.metric(RELOADS % "refused") == 1
            assert await serve.metric(RELOADS % "applied") == 0
            await serve.reload(text)
            assert await serve.metric(RELOADS % "applied") == 1


async def test_a_revoked_key_stops_working_and_a_new_one_works(tmp_path):
    keys = tmp_path / "keys"
    alice, bob = new_key("alice"), new_key("bob")
    keys.write_text(alice.line + "\n")
    keys.chmod(0o600)
    assert len(KeyRing.load(keys)) == 1
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}api_keys_file: keys\n"
        async with serving(tmp_path, text) as serve:
            serve.client.headers["authorization"] = f"Bearer {alice.key}"
            assert await ask(serve) == 200
            keys.write_text(bob.line + "\n")
            assert await ask(serve) == 200
            assert "changed: API keys" in await serve.reload()
            assert await ask(serve) == 401
            serve.client.headers["authorization"] = f"Bearer {bob.key}"
            assert await ask(serve) == 200
            keys.write_text("nonsense\n")
            assert "has 1 words; expected" in await serve.reload()
            assert await ask(serve) == 200


async def test_limits_hold_for_new_requests_and_not_for_those_under_way(tmp_path):
    async with Waiting() as engine:
        text = f"pools:\n{pool(engine)}"
        async with serving(tmp_path, text) as serve:
            async with serve.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
                pieces = answer.aiter_raw()
                got = await anext(pieces)
                shorter = "limits: {max_body: 10}\ntimeouts: {total: 100ms, between_bytes: 100ms}\n"
                await serve.reload(text + shorter)
                assert await ask(serve) == 413
                await asyncio.sleep(0.8)  # several looks at deadlines
                engine.go.set()
                async for piece in pieces:
                    got += piece
            assert got.endswith(b"data: [DONE]\n\n")


async def test_more_connections_than_files_are_warned_of(tmp_path):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}"
        async with serving(tmp_path, text) as serve:
            said = await serve.reload(f"{text}limits: {{max_connections: 5000000}}\n")
            assert "warning: limits.max_connections is 5000000, but only" in said
            assert "max_connections" not in await serve.reload(text)


async def test_what_needs_a_restart_is_named_and_the_rest_applied(tmp_path):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}"
        async with serving(tmp_path, text) as serve:
            moved = "listen: {host: localhost, port: 0}\ncontrol: {port: 1}\n"
            for _ in range(2):  # a second reload says so again
                said = await serve.reload(text + "aliases: {chat: m}\n", listen=moved)
                assert "needs a restart: listen.host, control.port" in said
            assert await ask(serve, "chat") == 200
            assert await serve.metric(RELOADS % "partial") == 2
            assert "needs a restart" not in await serve.reload(text, listen=LISTEN)


@pytest.mark.parametrize("there", ["host: 127.0.0.1, port: 0", "unix: {tmp_path}/socket"])
async def test_keys_are_asked_for_as_long_as_others_reach_it(tmp_path, there):
    keys, alice = tmp_path / "keys", new_key("alice")
    keys.write_text(alice.line + "\n")
    keys.chmod(0o600)
    control = "control: {port: 0}\n"
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine)}"
        everywhere = f"listen: {{host: 0.0.0.0, port: 0}}\n{control}"
        async with serving(tmp_path, f"{text}api_keys_file: keys\n", listen=everywhere) as serve:
            assert await ask(serve) == 401
            moved = f"listen: {{{there.format(tmp_path=tmp_path)}}}\n{control}"
            for _ in range(2):  # where it listens waits for a restart, and so do its keys
                said = await serve.reload(text, listen=moved)
                assert said.endswith(", api_keys_file")
                assert await ask(serve) == 401
            serve.client.headers["authorization"] = f"Bearer {alice.key}"
            assert await ask(serve) == 200


async def test_the_engines_key_changes(tmp_path):
    key = tmp_path / "engine-key"
    key.write_text("sk-old\n")
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        text = f"pools:\n{pool(engine, more=', api_key_file: engine-key')}"
        async with serving(tmp_path, text) as serve:
            assert await ask(serve) == 200
            key.write_text("sk-new\n")
            assert "changed: secrets" in await serve.reload()
            before = len(engine.received)
            assert await ask(serve) == 200
            await until(lambda: any(each.target == "/metrics" for each in engine.received[before:]))
    after = {each.headers["authorization"] for each in engine.received[before:]}
    assert after == {"Bearer sk-new"}
    assert engine.received[0].headers["authorization"] == "Bearer sk-old"


async def test_the_control_planes_token_changes(tmp_path):
    token = tmp_path / "token"
    token.write_text("old\n")
    listen = "listen: {port: 0}\ncontrol: {port: 0, token_file: token}\n"
    statuses: list[int] = []
    async with (
        ScriptedEngine(three_words, models=({"id": "m"},)) as engine,
        serving(tmp_path, f"pools:\n{pool(engine)}", listen=listen) as serve,
    ):
        for written in ("old", "new"):
            token.write_text(written)
            await serve.reload()
            headers = {"authorization": "Bearer old"}
            answer = await serve.control_client.post("/telemetry", json={}, headers=headers)
            statuses.append(answer.status_code)
    assert statuses == [400, 401]


async def test_a_hangup_while_it_starts_is_a_reload_and_not_the_end(tmp_path):
    async with ScriptedEngine(three_words, models=({"id": "m"},)) as engine:
        file = tmp_path / "headrace.yaml"
        os.mkfifo(file)  # holds the start up while it reads its configuration
        process = await headrace("serve", "-c", file)
        text = f"{LISTEN}{HEALTH}pools:\n{pool(engine)}"
        try:
            with await asyncio.to_thread(file.open, "w") as pipe:
                process.send_signal(signal.SIGHUP)
                file.unlink()
                file.write_text(text)
                pipe.write(text)
            assert process.stderr is not None
            async with asyncio.timeout(HANG_S):
                while b"reloaded" not in (line := await process.stderr.readline()):
                    assert line, "it ended"
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
