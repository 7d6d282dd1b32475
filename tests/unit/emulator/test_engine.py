"""An emulated engine on a real port, asked by a real client."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import msgspec
import pytest

from headrace.compose.engine import Modelled
from headrace.core.model import Endpoint
from headrace.emulator.modelled import ModelledTiming
from headrace.emulator.settings import EngineSettings
from headrace.engine_model.profiles import profile
from headrace.engines.registry import dialect
from tests.conformance.captures import FOLDER, load
from tests.unit.emulator.asked import (
    ENDLESS,
    HELLO,
    chat,
    events,
    modelled,
    read_metrics,
    running,
    serving,
)


async def test_a_whole_answer_has_the_form_and_the_length_asked_for():
    async with running(model="m") as (_, client):
        answer = (await chat(client, model="m", max_tokens=5)).json()
    assert answer["object"] == "chat.completion"
    choice = answer["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": " the water runs down to",
        "refusal": None,
    }
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


async def test_a_stream_is_read_as_a_real_engines_is():
    async with running() as (_, client):
        answer = await chat(client, stream=True, max_tokens=4)
        asked = {"stream": True, "max_tokens": 4, "stream_options": {"include_usage": True}}
        with_usage = await chat(client, **asked)
    chunks = events(answer)
    assert [each["choices"][0]["delta"].get("content") for each in chunks] == [
        "",
        " the",
        " water",
        " runs",
        " down",
    ]
    assert all("usage" not in each for each in chunks)
    reader = dialect("vllm").stream_reader(Endpoint.CHAT)
    for event in with_usage.content.split(b"\n\n")[:-1]:
        reader.feed(event + b"\n\n")
    assert reader.done
    assert reader.content_chunks == 4
    assert reader.usage is not None
    assert reader.usage.output_tokens == 4


async def test_several_choices_share_an_answer_and_its_prompt():
    async with modelled() as (_, client):
        body = {"prompt": list(range(1000)), "max_tokens": 4, "n": 3}
        answer = (await client.post("/v1/completions", json=body)).json()
        page = (await client.get("/metrics")).text
    assert [each["index"] for each in answer["choices"]] == [0, 1, 2]
    assert {each["text"] for each in answer["choices"]} == {" the water runs down"}
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (1000, 12)
    labels = 'engine="0",model_name="m"'
    assert f'vllm:request_success_total{{{labels},finished_reason="length"}} 3.0' in page
    assert f"vllm:prefix_cache_hits_total{{{labels}}} {2 * 992}.0" in page
    assert f"vllm:request_params_n_sum{{{labels}}} 3.0" in page


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_several_choices_are_streamed_side_by_side(path: str):
    body = {**HELLO, "prompt": "hello", "max_tokens": 3, "n": 2, "stream": True}
    async with running() as (_, client):
        answer = await client.post(path, json={**body, "stream_options": {"include_usage": True}})
        plain = await client.post(path, json=body)
    *chunks, last = events(answer)
    assert len({each["id"] for each in (*chunks, last)}) == 1
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    for index in (0, 1):
        own = [each["choices"][0] for each in chunks if each["choices"][0]["index"] == index]
        assert [each["finish_reason"] for each in own if each["finish_reason"]] == ["length"]
        texts = [each.get("text") or each.get("delta", {}).get("content") for each in own]
        assert "".join(filter(None, texts)) == " the water runs"
    assert len(events(plain)) == len(chunks)


async def test_a_client_that_leaves_aborts_all_choices():
    async with running(ENDLESS) as (engine, client):
        body = {**HELLO, "stream": True, "n": 2}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            await anext(answer.aiter_bytes())
            assert (await read_metrics(client)).running == 2
        while (await read_metrics(client)).running:
            await asyncio.sleep(0.01)
        assert engine.metrics.finished_by_reason["abort"] == 2


async def test_load_counts_requests_and_not_their_choices():
    """As vLLM does, whose gauge of what runs counts each choice."""
    async with running(ENDLESS) as (_, client):
        body = {**HELLO, "stream": True, "n": 3}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            pieces = answer.aiter_bytes()  # the stream ends with the last one who holds this
            await anext(pieces)
            assert (await client.get("/load")).json() == {"server_load": 1}
            assert (await read_metrics(client)).running == 3
        while (await client.get("/load")).json() != {"server_load": 0}:
            await asyncio.sleep(0.01)


async def test_tokens_are_told_as_texts_where_that_is_asked_for():
    async with running() as (_, client):
        body = {"prompt": "what makes the water run?", "return_token_strs": True}
        answer = (await client.post("/tokenize", json=body)).json()
        plain = (await client.post("/tokenize", json={**body, "return_token_strs": False})).json()
    assert len(answer["token_strs"]) == answer["count"] == len(answer["tokens"])
    assert "".join(answer["token_strs"]).startswith('"what makes the water')
    assert plain == {**answer, "token_strs": None}


async def test_a_ping_may_be_posted():
    """As Amazon SageMaker's contract and vLLM's routes have it."""
    async with running() as (_, client):
        assert (await client.post("/ping", content=b"")).status_code == 200
        assert (await client.get("/ping")).status_code == 200
        assert (await client.put("/ping")).status_code == 405


async def test_continuous_usage_counts_up_with_each_token():
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with running() as (_, client):
        answer = await chat(client, stream=True, max_tokens=3, stream_options=options)
    counts = [each["usage"]["completion_tokens"] for each in events(answer)]
    assert counts == [0, 1, 2, 3, 3]


async def test_completions_take_text_and_token_ids():
    async with running() as (_, client):
        whole = await client.post("/v1/completions", json={"prompt": "x" * 400, "max_tokens": 2})
        ids = {"prompt": [1, 2, 3, 4, 5], "max_tokens": 2, "stream": True}
        ids["stream_options"] = {"include_usage": True}
        streamed = events(await client.post("/v1/completions", json=ids))
    assert whole.json()["object"] == "text_completion"
    assert whole.json()["choices"][0]["text"] == " the water"
    assert whole.json()["usage"]["prompt_tokens"] == pytest.approx(100, abs=2)
    assert [each["choices"][0]["text"] for each in streamed[:-1]] == [" the", " water"]
    assert streamed[-1]["usage"]["prompt_tokens"] == 5


async def test_an_answer_ends_by_itself_unless_told_otherwise():
    async with running(output_tokens=3) as (_, client):
        own_end = (await chat(client, max_tokens=50)).json()
        least = (await chat(client, max_tokens=50, min_tokens=7)).json()
        forced = (await chat(client, max_tokens=50, ignore_eos=True)).json()
    assert own_end["choices"][0]["finish_reason"] == "stop"
    assert own_end["usage"]["completion_tokens"] == 3
    assert least["choices"][0]["finish_reason"] == "stop"
    assert least["usage"]["completion_tokens"] == 7
    assert forced["choices"][0]["finish_reason"] == "length"
    assert forced["usage"]["completion_tokens"] == 50


def refused_by_vllm(name: str) -> tuple[int, str | None]:
    """Status and `param` of a captured refusal."""
    captured = load("vllm", name)
    return captured.status, json.loads(captured.body)["error"]["param"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"messages": []}, *refused_by_vllm("err-empty-messages")),
        ({**HELLO, "model": "other"}, 404, "model"),
        ({**HELLO, "max_tokens": 0}, 400, "max_tokens"),
        ({**HELLO, "n": 0}, 400, "n"),
        ({**HELLO, "n": 129}, 400, "n"),
        ({**HELLO, "max_tokens": 64}, 400, "input_tokens"),
        ({**HELLO, "max_tokens": 65}, 400, "max_tokens"),
        ({**HELLO, "max_tokens": 5, "min_tokens": 6}, 400, "min_tokens"),
        ({**HELLO, "min_tokens": -1}, 400, "min_tokens"),
        ({**HELLO, "max_tokens": 5, "max_completion_tokens": 0}, 400, "max_tokens"),
        ({**HELLO, "stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({**HELLO, "max_tokens": "many"}, *refused_by_vllm("err-wrong-type")),
    ],
)
async def test_what_cannot_be_served_is_refused_in_vllms_shape(
    body: dict[str, object], status: int, param: str | None
):
    async with running(max_context_tokens=64) as (_, client):
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (status, param)
    assert error["message"]


async def test_a_prompt_over_the_context_is_refused_in_vllms_words():
    captured = (
        (FOLDER / "vllm" / "err-context-overflow.response.txt").read_text().partition("\n\n")[2]
    )
    async with running(max_context_tokens=2048) as (_, client):
        prompt = {"role": "user", "content": "hello world " * 6000}
        answer = await client.post("/v1/chat/completions", json={"messages": [prompt]})
    assert answer.json() == json.loads(captured)


@pytest.mark.parametrize(
    "prompt",
    [b"null", b"5", b"{}", b"[]", b"[[]]", b"[-1]", b"[" * 5000 + b"1" + b"]" * 5000],
    ids=["null", "number", "object", "none", "none of one", "negative", "deep"],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
async def test_what_is_no_prompt_is_refused(path: str, prompt: bytes):
    async with running() as (_, client):
        answer = await client.post(path, content=b'{"prompt":' + prompt + b"}")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_the_rest_of_the_api():
    async with running(model="m") as (_, client):
        assert (await client.get("/health")).content == b""
        assert (await client.get("/version")).json() == {"version": "0.32.0"}
        assert (await client.get("/load")).json() == {"server_load": 0}
        assert (await client.get("/v1/models")).json()["data"][0]["id"] == "m"
        tokens = (await client.post("/tokenize", json={"prompt": "x" * 40})).json()
        assert tokens["count"] == len(tokens["tokens"]) == pytest.approx(10, abs=1)
        ids = (await client.post("/tokenize", json={"prompt": [7, 8, 9]})).json()
        assert ids["tokens"] == [7, 8, 9]
        text = (await client.post("/detokenize", json={"tokens": [7, 8, 9]})).json()
        assert text == {"prompt": " the water runs"}
        assert (await client.post("/detokenize", json={"tokens": "x"})).status_code == 400
        assert (await client.get("/v1/chat/completions")).status_code == 405
        assert (await client.post("/health")).status_code == 405
        assert (await client.get("/nothing")).status_code == 404


async def test_metrics_count_what_was_served():
    async with running() as (_, client):
        usage = (await chat(client, max_tokens=5)).json()["usage"]
        await chat(client, max_tokens=2, stream=True)
        reading = await read_metrics(client)
        page = (await client.get("/metrics")).text
    assert reading.skipped_lines == 0
    assert reading.running == reading.queue_depth == 0
    assert reading.output_tokens_total == 7
    assert reading.input_tokens_total == 2 * usage["prompt_tokens"]
    assert reading.kv_capacity_tokens == EngineSettings().kv_capacity_tokens
    assert 'finished_reason="length"} 2.0' in page
    labels = 'engine="0",model_name="emulated"'
    assert f'vllm:inter_token_latency_seconds_bucket{{{labels},le="+Inf"}} 5.0' in page
    assert f"vllm:time_to_first_token_seconds_count{{{labels}}} 2.0" in page


async def test_a_models_name_may_hold_what_labels_quote():
    async with running(model='a"b\\c') as (_, client):
        reading = await read_metrics(client)
        page = (await client.get("/metrics")).text
    assert reading.skipped_lines == 0
    assert reading.running == 0
    assert 'model_name="a\\"b\\\\c"' in page


async def test_a_client_that_leaves_aborts_its_generation():
    async with running(ENDLESS) as (engine, client):
        body = {**HELLO, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            await anext(answer.aiter_bytes())
            assert (await read_metrics(client)).running == 1
        while (await read_metrics(client)).running:
            await asyncio.sleep(0.01)
        assert engine.metrics.finished_by_reason == {"stop": 0, "length": 0, "abort": 1}


async def test_a_conversation_finds_its_beginning_cached_and_usage_says_so():
    first = {"role": "user", "content": "What makes water run? " * 100}
    second = [first, {"role": "assistant", "content": "gravity"}, {"role": "user", "content": "?"}]
    options = {"include_usage": True}
    async with modelled() as (_, client):
        cold = (await chat(client, messages=[first], max_tokens=3)).json()["usage"]
        answer = await chat(
            client, messages=second, max_tokens=3, stream=True, stream_options=options
        )
        reading = await read_metrics(client)
        page = (await client.get("/metrics")).text
    assert cold["prompt_tokens_details"] == {"cached_tokens": 0}
    warm = events(answer)[-1]["usage"]
    cached = warm["prompt_tokens_details"]["cached_tokens"]
    assert cached == cold["prompt_tokens"] // 16 * 16
    labels = 'engine="0",model_name="m"'
    queries = cold["prompt_tokens"] + warm["prompt_tokens"]
    assert f"vllm:prefix_cache_hits_total{{{labels}}} {float(cached)}" in page
    assert f"vllm:prefix_cache_queries_total{{{labels}}} {float(queries)}" in page
    assert reading.kv_capacity_tokens == profile("h100-llama-3.1-8b").kv_capacity_tokens


def samples(page: str) -> dict[str, dict[str, str]]:
    """By name the labels of samples and their values, what Prometheus adds by itself left out."""
    found: dict[str, dict[str, str]] = {}
    for line in page.splitlines():
        if line.startswith("vllm:") and "_created" not in line:
            name, _, rest = line.partition("{")
            labels, _, value = rest.rpartition("} ")
            found.setdefault(name, {})[",".join(sorted(re.findall(r'\w+="[^"]*"', labels)))] = value
    return found


NOT_MODELLED = {
    # Of an engine's steps, of what its hardware did, and of limits it does not have.
    *(f"vllm:estimated_{what}_per_gpu_total" for what in ("flops", "read_bytes", "write_bytes")),
    *(f"vllm:iteration_tokens_total_{part}" for part in ("bucket", "count", "sum")),
    *(f"vllm:request_num_preemptions_{part}" for part in ("bucket", "count", "sum")),
    "vllm:admission_rejections_total",
    # With the labels of a real configuration.
    "vllm:cache_config_info",
}


async def test_metrics_have_the_names_and_labels_of_a_real_engines():
    captured = (FOLDER / "vllm" / "metrics-under-load-14conc-8seqs.txt").read_text()
    async with modelled() as (_, client):
        page = (await client.get("/metrics")).text
    ours = samples(page)
    theirs = samples(captured.replace("smollm2-135m-instruct", "m"))
    assert {name for name in theirs if name not in ours} <= NOT_MODELLED
    for name in ours.keys() - NOT_MODELLED:
        # Buckets of tokens go as far as the context does, which is longer here.
        longer = ours[name].keys() - theirs[name].keys() if name.endswith("_bucket") else set()
        assert all(float(each.split('"')[3]) > 4096 for each in longer), name
        assert ours[name].keys() - longer == theirs[name].keys(), name


async def test_the_prefix_cache_is_counted_at_admission_and_prompts_at_their_first_token():
    async with modelled(speed=0.01) as (_, client):
        asked = {"prompt": [1] * 16_000, "stream": True}
        request = asyncio.create_task(client.post("/v1/completions", json=asked))
        while not (reading := await read_metrics(client)).running:
            await asyncio.sleep(0.01)
        page = samples((await client.get("/metrics")).text)
        request.cancel()
    assert reading.input_tokens_total == 0
    assert reading.prefix_queries_tokens_total == 16_000
    by_source = page["vllm:prompt_tokens_by_source_total"]
    assert set(by_source.values()) == {"0.0"}


async def test_prompt_tokens_are_told_by_source():
    async with modelled() as (_, client):
        for _ in range(2):
            await client.post("/v1/completions", json={"prompt": [7] * 1000, "max_tokens": 2})
        page = samples((await client.get("/metrics")).text)
    labels = 'engine="0",model_name="m",source='
    assert page["vllm:prompt_tokens_by_source_total"] == {
        f'{labels}"local_compute"': "1008.0",
        f'{labels}"local_cache_hit"': "992.0",
        f'{labels}"external_kv_transfer"': "0.0",
    }
    assert page["vllm:prompt_tokens_cached_by_source_total"][f'{labels}"device"'] == "992.0"
    name = "vllm:request_prefill_kv_computed_tokens"
    assert page[f"{name}_sum"] == {'engine="0",model_name="m"': "1008.0"}


async def test_metrics_tell_waiting_from_prefill_and_decoding():
    prompts = [{"prompt": [number] * 16_000, "max_tokens": 3} for number in (1, 2)]
    async with modelled(speed=10.0) as (_, client):
        await asyncio.gather(*(client.post("/v1/completions", json=each) for each in prompts))
        page = (await client.get("/metrics")).text

    def total(name: str) -> float:
        (line,) = (each for each in page.splitlines() if each.startswith(f"vllm:{name}_sum"))
        return float(line.rpartition(" ")[2])

    times = {name: total(f"request_{name}_time_seconds") for name in ("queue", "prefill", "decode")}
    ttft_s, whole_s = total("time_to_first_token_seconds"), total("e2e_request_latency_seconds")
    assert times["queue"] >= 0.0
    assert times["queue"] + times["prefill"] == pytest.approx(ttft_s)
    assert sum(times.values()) == pytest.approx(whole_s)
    assert total("request_inference_time_seconds") == pytest.approx(whole_s - times["queue"])
    assert total("request_params_max_tokens") == total("request_max_num_generation_tokens") == 6


async def test_metrics_show_who_runs_and_who_waits_in_the_model():
    """70B on eight L4: little KV, so a second long prompt has to wait."""
    async with modelled("l4-llama-3.3-70b-tp8", speed=1.0) as (_, client):
        bodies = [{"prompt": [number] * 30_000, "max_tokens": 9} for number in (1, 2)]
        posts = [client.post("/v1/completions", json=body) for body in bodies]
        asked = [asyncio.ensure_future(each) for each in posts]
        while not (reading := await read_metrics(client)).queue_depth:
            await asyncio.sleep(0.01)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    assert reading.running == 1
    assert reading.queue_depth == 1
    assert reading.kv_usage_ratio == pytest.approx(30_000 / 36_880, abs=0.01)


async def test_a_prompt_longer_than_the_kv_cache_is_refused():
    async with modelled("l4-llama-3.1-8b") as (_, client):
        answer = await client.post("/v1/completions", json={"prompt": [1] * 24_000})
    assert answer.status_code == 400
    assert "maximum context length is 23056 tokens" in answer.json()["error"]["message"]


async def test_an_engine_that_was_measured_has_its_own_context():
    spec = replace(profile("h100-llama-3.1-8b"), max_context_tokens=100)
    settings = Modelled(spec).settings("m", 128)
    async with serving(settings, ModelledTiming(spec, speed=100.0)) as (_, client):
        assert (await client.get("/v1/models")).json()["data"][0]["max_model_len"] == 100
        over = await client.post("/v1/completions", json={"prompt": [1] * 91, "max_tokens": 10})
    assert over.status_code == 400


async def test_a_kv_cache_that_is_no_whole_number_of_blocks_holds_what_it_says():
    spec = replace(profile("h100-llama-3.1-8b"), kv_capacity_tokens=1000)
    settings = Modelled(spec).settings("m", 128)
    async with serving(settings, ModelledTiming(spec, speed=100.0)) as (_, client):
        full = await client.post("/v1/completions", json={"prompt": [1] * 982, "max_tokens": 10})
        over = await client.post("/v1/completions", json={"prompt": [1] * 983, "max_tokens": 10})
    assert full.json()["usage"]["total_tokens"] == 992
    assert over.status_code == 400


async def test_a_slow_reader_gets_everything_in_the_end():
    tokens = 40_000
    async with running(max_context_tokens=10**6) as (engine, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", engine.port, limit=2**16)
        body = {**HELLO, "stream": True, "max_tokens": tokens, "ignore_eos": True}
        data = msgspec.json.encode(body)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(data) + data)
        while not engine.metrics.finished_by_reason["length"]:  # generated with nobody reading
            await asyncio.sleep(0.01)
        answer = await reader.readuntil(b"\r\n\r\n")
        count = 0
        while not answer.endswith(b"0\r\n\r\n"):
            answer = answer[-8:] + await reader.read(2**16)
            count += answer.count(b"\n\n") - answer[:8].count(b"\n\n")
        writer.close()
    assert count == tokens + 2


@pytest.mark.parametrize("prompts", [["hello there, you", "good bye to all"], [[1, 2, 3], [4, 5]]])
async def test_each_prompt_of_a_list_has_its_choices(prompts: list[object]):
    body = {"prompt": prompts, "max_tokens": 2, "n": 2}
    async with running() as (_, client):
        each = [
            (await client.post("/v1/completions", json={**body, "prompt": prompt})).json()["usage"]
            for prompt in prompts
        ]
        whole = (await client.post("/v1/completions", json=body)).json()
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        *chunks, last = events(await client.post("/v1/completions", json=body))
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    for usage in (whole["usage"], last["usage"]):
        assert usage["prompt_tokens"] == sum(one["prompt_tokens"] for one in each)
        assert usage["completion_tokens"] == 8
    ends = {
        chunk["choices"][0]["index"] for chunk in chunks if chunk["choices"][0]["finish_reason"]
    }
    assert ends == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "prompt", [["a", [1]], [[], [1]], ["a"] * 1025, [["a"]], [1, "a"], [None, None]]
)
async def test_odd_lists_of_prompts_are_refused(prompt: list[object]):
    async with running() as (_, client):
        answer = await client.post("/v1/completions", json={"prompt": prompt, "max_tokens": 2})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize(
    ("asked", "text", "stopped"),
    [
        ({"stop": " runs"}, " the water", (3, "stop", " runs")),
        ({"stop": ["nothing", "er ru"]}, " the wat", (3, "stop", "er ru")),
        ({"stop": ["down", "water"]}, " the ", (2, "stop", "water")),
        ({"stop": "the water runs"}, " ", (3, "stop", "the water runs")),
        ({"stop": " and the"}, " the water runs down to", (5, "length", None)),
        ({"stop": "the", "min_tokens": 4}, " the water runs down to", (5, "length", None)),
        ({"stop": "the", "min_tokens": 4, "max_tokens": 9},
         " the water runs down to a turbine and ", (9, "stop", "the")),
        ({"stop": []}, " the water runs down to", (5, "length", None)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stop_string_ends_an_answer_before_it(
    path: str, asked: dict[str, object], text: str, stopped: tuple[int, str, str | None]
):
    body = {**HELLO, "prompt": "hello", "max_tokens": 5, **asked}
    async with running() as (_, client):
        whole = (await client.post(path, json=body)).json()
        streamed = events(await client.post(path, json={**body, "stream": True}))
    choice = whole["choices"][0]
    assert (choice.get("text") or choice["message"]["content"]) == text
    found = (whole["usage"]["completion_tokens"], choice["finish_reason"], choice["stop_reason"])
    assert found == stopped
    chunks = [each["choices"][0] for each in streamed]
    sent = [each.get("text") or each.get("delta", {}).get("content") for each in chunks]
    assert "".join(filter(None, sent)) == text
    assert (chunks[-1]["finish_reason"], chunks[-1]["stop_reason"]) == stopped[1:]


async def test_an_empty_stop_string_is_refused():
    async with running() as (_, client):
        answer = await chat(client, stop=[""])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stop")
