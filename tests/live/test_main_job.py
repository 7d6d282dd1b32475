"""The main job on a real model: `headrace up`, then what people do with it."""

import asyncio
import os
import signal
import subprocess
import time

import httpx
import openai
import pytest

from tests.live.up import HANG_S, Up, alive, children_of, command, free_port, running_up

pytestmark = pytest.mark.live

MODEL = "smollm2-135m-instruct"
HELLO = [{"role": "user", "content": "Say hello in five words."}]


@pytest.fixture(scope="module")
def up(path_without_compilers: str, model_path):
    with running_up(path=path_without_compilers) as running:
        yield running


@pytest.fixture(scope="module")
def client(up: Up):
    with openai.OpenAI(base_url=f"{up.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def long_prompt(seed: str, words: int = 150) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": " ".join(f"{seed}{i}" for i in range(words))},
        {"role": "user", "content": "What is the first word?"},
    ]


def test_what_is_printed_tells_how_to_go_on(up: Up):
    assert up.url in up.printed
    assert up.control in up.printed
    assert "curl" in up.printed


class TestOfficialClient:
    def test_chat(self, client):
        answer = client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=8, temperature=0
        )
        assert answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0

    def test_stream_with_usage(self, client):
        stream = client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text
        assert chunks[-1].usage.completion_tokens > 0

    def test_stream_without_usage_shows_none(self, client):
        stream = client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=8, temperature=0, stream=True
        )
        chunks = list(stream)
        assert all(chunk.choices for chunk in chunks)
        assert not any(chunk.usage for chunk in chunks)

    def test_completions(self, client):
        answer = client.completions.create(
            model=MODEL, prompt="Once upon a time", max_tokens=6, temperature=0
        )
        assert answer.choices[0].text
        parts = client.completions.create(
            model=MODEL, prompt="Once upon a time", max_tokens=6, temperature=0, stream=True
        )
        chunks = list(parts)
        assert "".join(c.choices[0].text for c in chunks)
        assert not any(chunk.usage for chunk in chunks)

    def test_models(self, client):
        assert [m.id for m in client.models.list()] == [MODEL]
        assert client.models.retrieve(MODEL).id == MODEL

    def test_tools(self, client):
        tool = {
            "type": "function",
            "function": {
                "name": "get_weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Weather in Paris?"}],
            tools=[tool],
            tool_choice="required",
            max_tokens=48,
            temperature=0,
        )
        # So small a model may talk instead of calling; real calls are in the engines' captures.
        said = answer.choices[0].message
        assert said.tool_calls or said.content

    def test_responses(self, client):
        answer = client.responses.create(
            model=MODEL, input="Say hi", max_output_tokens=8, temperature=0
        )
        assert answer.output_text

    def test_errors(self, client):
        with pytest.raises(openai.NotFoundError, match=MODEL):
            client.chat.completions.create(model="no-such-model", messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="exceeds the available context"):
            client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hello world " * 4000}]
            )


def test_curl_streams_as_printed(up: Up):
    command = next(part for part in up.printed.split("\n\n") if part.startswith("curl"))
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert done.stdout.count("data: ") > 2
    assert done.stdout.rstrip().endswith("data: [DONE]")


def test_why_works_as_printed(up: Up):
    ask = {"model": MODEL, "messages": HELLO, "max_tokens": 4}
    answer = httpx.post(f"{up.url}/v1/chat/completions", json=ask, timeout=HANG_S, trust_env=False)
    command = next(line for line in up.printed.splitlines() if "headrace why" in line)
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, timeout=HANG_S, check=True
    )
    assert answer.headers["x-headrace-request-id"] in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_long_prefix_goes_back_to_its_replica(up: Up):
    def ask() -> tuple[httpx.Response, float]:
        body = {
            "model": MODEL,
            "messages": long_prompt("alpha"),
            "max_tokens": 4,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start = time.perf_counter()
        with httpx.stream(
            "POST", f"{up.url}/v1/chat/completions", json=body, timeout=HANG_S, trust_env=False
        ) as answer:
            answer.read()
        return answer, time.perf_counter() - start

    first, first_s = ask()
    second, second_s = ask()
    print(f"first {first_s:.2f} s, second {second_s:.2f} s")
    assert second.headers["x-headrace-replica"] == first.headers["x-headrace-replica"]
    explained = up.why(second.headers["x-headrace-request-id"])
    chosen = explained["attempts"][-1]["candidates"][0]
    assert chosen["chosen"]
    assert chosen["hit_tokens"] > 300
    cached = int(second.text.rpartition('"cached_tokens":')[2].partition("}")[0])
    assert cached > 300


def test_why_prints_a_table(up: Up):
    answer = httpx.post(
        f"{up.url}/v1/chat/completions",
        json={"model": MODEL, "messages": HELLO, "max_tokens": 2},
        headers={"x-request-id": "mine-7"},
        timeout=HANG_S,
        trust_env=False,
    )
    for request_id in ("mine-7", answer.headers["x-headrace-request-id"]):
        shown = subprocess.run(
            command("why", request_id, "--control", up.control),
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=True,
        ).stdout
        assert answer.headers["x-headrace-replica"] in shown
        assert "TTFT" in shown


def test_a_client_that_leaves_frees_its_slot(up: Up):
    body = {
        "model": MODEL,
        "messages": HELLO,
        "max_tokens": 3000,
        "ignore_eos": True,
        "stream": True,
    }
    with httpx.stream(
        "POST", f"{up.url}/v1/chat/completions", json=body, timeout=HANG_S, trust_env=False
    ) as answer:
        replica = up.fleet()[answer.headers["x-headrace-replica"]]
        pieces = answer.iter_raw()
        next(pieces)
        slots = httpx.get(f"{replica['url']}/slots", trust_env=False).json()
        assert any(slot["is_processing"] for slot in slots)
    guard = time.monotonic() + 20
    while any(
        slot["is_processing"]
        for slot in httpx.get(f"{replica['url']}/slots", trust_env=False).json()
    ):
        assert time.monotonic() < guard, "the engine still works for a client that has left"
        time.sleep(0.1)


def test_tokens_are_in_metrics(up: Up):
    text = up.metrics()
    for name in (
        "llm_ttft_seconds_bucket",
        "llm_tpot_seconds_bucket",
        "llm_itl_seconds_bucket",
        "llm_kv_cache_usage_ratio",
        "llm_queue_depth",
        "llm_requests_running",
        'llm_tokens_processed_total{model_id="smollm2-135m-instruct"',
    ):
        assert name in text


def test_a_killed_replica_under_load(up: Up):
    asyncio.run(_kill_under_load(up))


async def _kill_under_load(up: Up) -> None:
    async with httpx.AsyncClient(base_url=up.url, timeout=HANG_S, trust_env=False) as client:
        ends = [asyncio.create_task(_stream(client, f"kill{n}")) for n in range(8)]
        while not any(r["decoding"] for r in up.fleet().values()):
            await asyncio.sleep(0.05)
        victim = next(name for name, r in up.fleet().items() if r["decoding"])
        os.kill(_process_of(up, victim), signal.SIGKILL)
        back_s = await _seconds_until_back(up, victim)
        results = await asyncio.gather(*ends)
    # Nothing hung, nothing was cut silently: whole, or an error event at the end.
    whole = [text for text in results if text.rstrip().endswith("data: [DONE]")]
    broken = [
        text for text in results if text.rstrip().splitlines()[-1].startswith('data: {"error"')
    ]
    assert len(whole) + len(broken) == 8
    assert whole
    assert broken
    print(f"back after {back_s:.1f} s; {len(broken)} of 8 streams were told that they broke")


def _process_of(up: Up, replica: str) -> int:
    """Replicas are started in the order of their names, and none was restarted before."""
    return sorted(children_of(up.process.pid))[int(replica.removeprefix("local-"))]


async def _seconds_until_back(up: Up, replica: str) -> float:
    """A restart gives the replica a new port, so its state alone would tell too early."""
    before, start = up.fleet()[replica]["url"], time.monotonic()
    while True:
        now = up.fleet()[replica]
        if now["state"] == "ready" and now["url"] != before:
            return time.monotonic() - start
        assert time.monotonic() - start < HANG_S
        await asyncio.sleep(0.1)


async def _stream(client: httpx.AsyncClient, seed: str) -> str:
    body = {
        "model": MODEL,
        "messages": long_prompt(seed, 20),
        "max_tokens": 80,
        "ignore_eos": True,
        "stream": True,
    }
    answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    return answer.text


def test_signals_leave_no_child_and_no_cut_stream(path_without_compilers: str, model_path):
    for sign in (signal.SIGINT, signal.SIGTERM):
        with running_up("--replicas", "1", path=path_without_compilers) as up:
            children = children_of(up.process.pid)
            assert children
            body = {"model": MODEL, "messages": HELLO, "max_tokens": 60, "stream": True}
            with httpx.stream(
                "POST", f"{up.url}/v1/chat/completions", json=body, timeout=HANG_S, trust_env=False
            ) as answer:
                pieces = answer.iter_raw()
                next(pieces)
                up.process.send_signal(sign)
                rest = b"".join(pieces)
            assert rest.rstrip().endswith(b"[DONE]")
            assert up.process.wait(HANG_S) == 0
            assert not [pid for pid in children if alive(pid)]


def test_embeddings_are_answered_and_counted(path_without_compilers: str, model_path):
    with (
        running_up("--embeddings", "--replicas", "1", path=path_without_compilers) as up,
        openai.OpenAI(base_url=f"{up.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        answer = client.embeddings.create(model=MODEL, input=["one text", "another, longer text"])
        assert len(answer.data) == 2
        assert len(answer.data[0].embedding) > 100
        chat = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=4)
        counted = sum(
            float(line.rpartition(" ")[2])
            for line in up.metrics().splitlines()
            if line.startswith("llm_tokens_processed_total") and 'token_type="input"' in line
        )
        assert chat.usage is not None
        assert counted == answer.usage.prompt_tokens + chat.usage.prompt_tokens


def test_a_taken_port_is_named(up: Up):
    port = up.url.rpartition(":")[2]
    done = subprocess.run(
        command("up", "--port", port, "--control-port", str(free_port())),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 2
    assert port in done.stderr
    assert "--port" in done.stderr
