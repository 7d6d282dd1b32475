"""Figures that cannot be true are not passed on: what an engine says then is unknown."""

from __future__ import annotations

import pytest

from headrace.engines.reading import EngineReading
from headrace.engines.registry import dialect

QUEUES = {
    "vllm": b"vllm:num_requests_waiting %s\nvllm:num_requests_running 2\n",
    "sglang": b"sglang:num_queue_reqs %s\nsglang:num_running_reqs 2\n",
    "tgi": b"tgi_queue_size %s\ntgi_batch_current_size 2\n",
    "trtllm": b"trtllm_num_requests_waiting %s\ntrtllm_num_requests_running 2\n",
    "llamacpp": b"llamacpp:requests_deferred %s\nllamacpp:requests_processing 2\n",
    "triton": b'nv_trt_llm_request_metrics{request_type="waiting"} %s\n'
    b'nv_trt_llm_request_metrics{request_type="active"} 2\n',
}
RATIOS = {
    "vllm": b"vllm:kv_cache_usage_perc %s\n",
    "sglang": b"sglang:token_usage %s\n",
    "trtllm": b"trtllm_kv_cache_utilization %s\n",
}
IMPOSSIBLE = [b"-3", b"-0.5", b"NaN", b"-Inf", b"+Inf", b"1e300"]


def read(engine: str, text: bytes) -> EngineReading:
    return dialect(engine).read({"/metrics": (200, text)})


@pytest.mark.parametrize("number", IMPOSSIBLE)
@pytest.mark.parametrize("engine", QUEUES)
def test_a_queue_below_nothing_is_not_told(engine: str, number: bytes):
    reading = read(engine, QUEUES[engine] % number)
    assert (reading.queue_depth, reading.running) == (None, 2)


@pytest.mark.parametrize("number", [*IMPOSSIBLE, b"1.7", b"63"])
@pytest.mark.parametrize("engine", RATIOS)
def test_a_share_of_a_cache_lies_between_nothing_and_all(engine: str, number: bytes):
    assert read(engine, RATIOS[engine] % number).kv_usage_ratio is None


@pytest.mark.parametrize("engine", RATIOS)
def test_a_full_cache_is_told(engine: str):
    assert read(engine, RATIOS[engine] % b"1").kv_usage_ratio == 1


def test_more_blocks_in_use_than_there_are_make_no_share():
    row = b'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="%s"} %d\n'
    blocks = b"".join(row % each for each in ((b"used", 9), (b"max", 6), (b"tokens_per", 64)))
    assert read("triton", blocks).kv_usage_ratio is None


def test_vllm_several_models_on_one_page_have_a_share_together():
    """Each has a rank 0; that of the second is not that of the first."""
    text = b"".join(
        b'vllm:kv_cache_usage_perc{engine="0",model_name="%s"} %s\n' % row
        for row in ((b"a", b"0.9"), (b"b", b"0.1"))
    )
    assert read("vllm", text).kv_usage_ratio == pytest.approx(0.5)
    config = b'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="101"} 1\n'
    reading = read("vllm", text + config)
    assert reading.kv_usage_ratio == pytest.approx(0.5)
    assert reading.kv_used_tokens is None  # whose cache that is, nobody says


def test_trtllm_engines_behind_one_address_have_a_share_and_a_size_together():
    """As a proxy shows them: sums of shares and of block sizes would be no such thing."""
    rows = (
        ("kv_cache_utilization", 0.9, 0.1),
        ("kv_cache_used_blocks", 90, 30),
        ("kv_cache_max_blocks", 100, 300),
        ("kv_cache_tokens_per_block", 32, 32),
    )
    text = "".join(
        f'trtllm_{name}{{worker="{worker}"}} {value}\n'
        for name, *values in rows
        for worker, value in enumerate(values)
    )
    reading = read("trtllm", text.encode())
    assert reading.kv_usage_ratio == pytest.approx(0.3)
    assert reading.kv_used_tokens == 120 * 32
    assert reading.kv_capacity_tokens == 400 * 32
    assert reading.block_size_tokens == 32
    shares = "".join(text.splitlines(keepends=True)[:2]).encode()
    assert read("trtllm", shares).kv_usage_ratio == pytest.approx(0.5)
