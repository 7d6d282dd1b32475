"""`headrace up` beyond the main job: one question, a taken port, a stop before it is ready."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from tests.live.up import HANG_S, alive, children_of, command, free_port, running_up

pytestmark = pytest.mark.live


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("up", "--replicas", "1", *arguments),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
        env={**os.environ, "PATH": path} if path else None,
    )


def test_one_question(path_without_compilers: str, model_path):
    done = run("--prompt", "Say hello.", "--max-tokens", "12", path=path_without_compilers)
    assert done.returncode == 0, done.stderr
    answer, _, figures = done.stdout.partition("measured: ")
    assert answer.strip()
    for word in ("TTFT", "TPOT", "counted by the engine: ", "cached", "out", "local-0"):
        assert word in figures
    estimate = re.search(r"an estimate of (\d+) prompt tokens, to .* prefill \d+ of (\d+)", figures)
    assert estimate is not None
    assert estimate[1] == estimate[2]
    assert "replica local-0 is ready" in done.stderr


def test_one_question_as_json(model_path):
    done = run("--prompt", "Say hello.", "--max-tokens", "12", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["text"]
    assert told["replica"] == "local-0"
    assert told["output_tokens"] <= 12
    assert told["ttft_s"] > 0
    assert f"of {told['estimated_input_tokens']} tokens" in told["reason"]


def test_urls_as_json(model_path):
    with running_up("--replicas", "1", "--json") as up:
        told = json.loads(next(line for line in up.printed.splitlines() if line[:1] == "{"))
        assert (told["gateway"], told["control"]) == (f"{up.url}/v1", up.control)
        assert told["model"]


@pytest.mark.parametrize("flag", ["--port", "--control-port"])
def test_a_taken_port_is_named_before_anything_is_started(model_path, flag):
    other = {"--port": "--control-port", "--control-port": "--port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(flag, port, other, "0")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert port in line
    assert flag in line


def test_a_stop_while_replicas_start_leaves_nothing(model_path):
    line = command("up", "--port", str(free_port()), "--control-port", "0")
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        guard = time.monotonic() + HANG_S
        while not (children := children_of(process.pid)):
            assert time.monotonic() < guard
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(HANG_S) == 0
        assert not [pid for pid in children if alive(pid)]
    finally:
        process.kill()
        process.wait()
