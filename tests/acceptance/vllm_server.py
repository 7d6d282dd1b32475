"""Real vLLM servers on free loopback ports, each a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID
from tests.live.up import alive, free_port
from tools.vllm_env import VllmEnv

START_GUARD_S = 600.0
"""A shared machine without a warm disk cache takes minutes to import torch and load the model."""
STOP_GUARD_S = 30.0
MAX_SEQUENCES = 8
CONTEXT_TOKENS = 2048

_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ENABLE_RESPONSES_API_STORE": "1",
}


@dataclass(frozen=True)
class VllmServer:
    """A running server.

    Attributes:
        url: Without `/v1`.
        api_key: What it asks for at `/v1/*`.
        model_id: The id it serves.
    """

    url: str
    api_key: str
    model_id: str = DEFAULT_MODEL_ID

    def metrics(self) -> str:
        """The text of its own `/metrics`."""
        return httpx.get(f"{self.url}/metrics", trust_env=False).text


@contextmanager
def running_vllm(env: VllmEnv, folder: Path, *options: str, api_key: str) -> Iterator[VllmServer]:
    """Start a server, wait until it answers, and leave no process of it behind."""
    port = free_port()
    log = folder / f"vllm-{port}.log"
    line = [
        # The command `vllm` of the CPU build fails: it looks for a package of its own name.
        str(env.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(env.model),
        "--host", "127.0.0.1", "--port", str(port),
        "--served-model-name", DEFAULT_MODEL_ID,
        "--max-model-len", str(CONTEXT_TOKENS), "--max-num-seqs", str(MAX_SEQUENCES),
        "--enforce-eager", "--enable-prefix-caching", "--enable-prompt-tokens-details",
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
        "--api-key", api_key, *options,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            line,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_SETTINGS},
            start_new_session=True,  # its engine is a process apart; the group holds both
        )
    server = VllmServer(f"http://127.0.0.1:{port}", api_key)
    try:
        _wait_ready(server, process, log)
        yield server
    finally:
        _stop(process)


def _wait_ready(server: VllmServer, process: subprocess.Popen[bytes], log: Path) -> None:
    guard = time.monotonic() + START_GUARD_S
    while True:
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < guard, log.read_text()[-4000:]
        try:
            if httpx.get(f"{server.url}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; then make sure of the whole group, which shares its leader's id."""
    members = _group(process.pid)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_GUARD_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_GUARD_S)
    guard = time.monotonic() + STOP_GUARD_S
    while any(alive(pid) for pid in members):
        assert time.monotonic() < guard, f"vLLM left processes behind: {members}"
        time.sleep(0.1)


def _group(leader: int) -> list[int]:
    """Process ids of a process group."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return found
