"""Unix sockets: to listen on, and to reach engines at."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from headrace.edges.http.socket_file import SocketFile
from tests.gateway.serve_process import HANG_S, LISTEN, headrace, pool, serving
from tests.scripted import ScriptedEngine, stream_words
from tests.waiting import until

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
ONE = "pools:\n  - {name: p, model: m, replicas: [http://127.0.0.1:9]}\n"


async def three_words(_received, peer):
    await stream_words(peer, 3)


def on_socket(path: Path) -> str:
    return f"listen: {{unix: {path}}}\ncontrol: {{port: 0}}\n"


async def test_from_socket_to_socket(tmp_path):
    path = tmp_path / "headrace.sock"
    engine = ScriptedEngine(three_words, models=({"id": "m"},), unix=str(tmp_path / "engine.sock"))
    async with engine:
        text = f"pools:\n{pool(engine)}grace: 0s\n"
        async with serving(tmp_path, text, listen=on_socket(path)) as serve:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            answer = await serve.client.post("/v1/chat/completions", json=CHAT)
            assert answer.text.endswith("data: [DONE]\n\n")
            assert answer.headers["x-headrace-replica"] == f"p/unix:{tmp_path}/engine.sock"
            await until(lambda: any(each.target == "/metrics" for each in engine.received))
            assert engine.received[0].headers["host"] == "localhost"
            serve.signal()
            code, _ = await serve.ended()
    assert code == 0
    assert not path.exists()


async def test_an_engine_moves_to_a_socket_by_a_reload(tmp_path):
    path = str(tmp_path / "engine.sock")
    async with (
        ScriptedEngine(three_words, models=({"id": "m"},)) as tcp,
        ScriptedEngine(three_words, models=({"id": "m"},), unix=path) as unix,
        serving(tmp_path, f"pools:\n{pool(tcp)}") as serve,
    ):
        await serve.reload(f"pools:\n{pool(unix)}")
        async with asyncio.timeout(HANG_S):
            while (await serve.client.post("/v1/chat/completions", json=CHAT)).is_error:
                await asyncio.sleep(0.02)
        assert unix.received
        assert "restart: listen.unix" in await serve.reload(
            f"pools:\n{pool(unix)}", listen=on_socket(tmp_path / "other.sock")
        )
        assert await serve.reload(f"pools:\n{pool(unix)}", listen=LISTEN)


@pytest.mark.parametrize("what", ["live", "file"])
async def test_what_is_there_is_not_taken_away(tmp_path, what):
    path = tmp_path / "headrace.sock"
    config = tmp_path / "headrace.yaml"
    config.write_text(on_socket(path) + ONE)
    with socket.socket(socket.AF_UNIX) as other:
        if what == "live":
            other.bind(str(path))
            other.listen()
        else:
            path.write_text("something")
        process = await headrace("serve", "-c", config)
        _, errors = await asyncio.wait_for(process.communicate(), HANG_S)
    reason = {"live": "another process listens there", "file": "a file that is no socket"}[what]
    assert process.returncode == 2
    assert errors.decode().startswith(f"headrace: cannot listen on {path}: {reason}")
    assert path.exists()


def test_a_stale_socket_gives_way(tmp_path):
    path = tmp_path / "headrace.sock"
    left_behind = SocketFile(str(path))
    left_behind.socket.close()
    again = SocketFile(str(path))
    again.socket.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    again.socket.close()
    again.remove()
    assert not path.exists()


def test_only_its_own_file_is_removed(tmp_path):
    path = tmp_path / "headrace.sock"
    mine = SocketFile(str(path))
    mine.socket.close()
    path.rename(tmp_path / "kept")  # so that its inode is not given out again
    theirs = SocketFile(str(path))
    mine.remove()
    assert path.exists()
    theirs.remove()
    theirs.socket.close()
    assert not path.exists()
