"""What dialects make of metrics that no engine here has shown: shapes from published sources."""

from __future__ import annotations

import pytest

from headrace.engines.reading import Durations, EngineReading, ListedModel
from headrace.engines.registry import dialect
from tests.conformance.captures import load, metrics

RANKS = "metrics-dp2-tp2-all-schedulers"


def read(engine: str, text: bytes) -> EngineReading:
    return dialect(engine).read({"/metrics": (200, text)})


def read_trtllm(steps: bytes | None, exported: bytes | None) -> EngineReading:
    answers = {"/metrics": steps, "/prometheus/metrics": exported}
    return dialect("trtllm").read(
        {path: (404, b"no") if body is None else (200, body) for path, body in answers.items()}
    )


# ---------------------------------------------------------------- SGLang


def test_sglang_ranks_that_share_work_count_once_and_data_parallel_ones_are_added():
    reading = read("sglang", metrics("sglang", RANKS))
    assert reading.running == 7 + 5
    assert reading.queue_depth == (3 + 1) + 2  # dp 0 has one in the grammar queue too
    assert reading.kv_capacity_tokens == 2 * 100_000
    assert reading.kv_used_tokens == 75_000
    assert reading.kv_usage_ratio == pytest.approx(0.375)
    assert reading.block_size_tokens == 16
    assert reading.preemptions_total == 3
    assert reading.skipped_lines == 0


def test_sglang_token_counters_add_up_over_their_labels():
    reading = read("sglang", metrics("sglang", RANKS))
    assert reading.input_tokens_total == 10_000
    assert reading.output_tokens_total == 4_321
    assert reading.cached_input_tokens_total == 2_300


def test_sglang_ttft_is_of_streamed_answers_only():
    reading = read("sglang", metrics("sglang", RANKS))
    assert reading.ttft == Durations(6.0, 30)
    assert reading.tpot == Durations(0.75, 30)


def test_sglang_pipeline_and_expert_ranks_count_once_too():
    rows = [
        b'sglang:num_running_reqs{pp_rank="%d",moe_ep_rank="%d",tp_rank="0"} 4' % (pp, ep)
        for pp in range(2)
        for ep in range(4)
    ]
    assert read("sglang", b"\n".join(rows)).running == 4


def test_sglang_a_rank_that_is_a_step_behind_does_not_hide_the_newest_number():
    text = b'sglang:num_queue_reqs{tp_rank="0"} 5\nsglang:num_queue_reqs{tp_rank="1"} 6\n'
    assert read("sglang", text).queue_depth == 6


def test_sglang_usage_is_weighted_by_the_capacity_of_data_parallel_ranks():
    text = (
        b'sglang:token_usage{dp_rank="0"} 0.9\nsglang:token_usage{dp_rank="1"} 0.1\n'
        b'sglang:max_total_num_tokens{dp_rank="0"} 300\n'
        b'sglang:max_total_num_tokens{dp_rank="1"} 100\n'
    )
    assert read("sglang", text).kv_usage_ratio == pytest.approx(0.7)


def test_sglang_of_before_tells_fewer_things_under_other_names():
    reading = read("sglang", metrics("sglang", "metrics-old-names"))
    assert (reading.running, reading.queue_depth) == (2, 1)
    assert reading.kv_usage_ratio == 0.125
    assert reading.kv_used_tokens == 1_234
    assert reading.kv_capacity_tokens == 617 * 16
    assert reading.block_size_tokens == 16
    assert (reading.input_tokens_total, reading.output_tokens_total) == (8_128, 7_557)
    assert reading.ttft == Durations(2.5, 11)
    assert reading.tpot == Durations(866.25, 7_400)
    assert reading.cached_input_tokens_total is None


def test_sglang_queues_of_prefill_and_decode_replicas_are_part_of_the_queue():
    text = (
        b"sglang:num_queue_reqs 1\nsglang:num_prefill_bootstrap_queue_reqs 2\n"
        b"sglang:num_decode_prealloc_queue_reqs 4\nsglang:num_decode_transfer_queue_reqs 8\n"
        b"sglang:num_prefill_inflight_queue_reqs 16\n"
    )
    assert read("sglang", text).queue_depth == 15


def test_sglang_a_cache_of_no_size_is_no_division_by_zero():
    reading = read("sglang", b"sglang:token_usage 0.5\nsglang:max_total_num_tokens 0\n")
    assert reading.kv_usage_ratio == 0.5
    assert reading.kv_capacity_tokens is None


def test_sglang_lists_adapters_with_their_base_model():
    base, adapter = dialect("sglang").models(load("sglang", "models").body)
    assert base == ListedModel("llama-3.1-8b-instruct", None, 8192, (), "sglang")
    assert adapter.parent == base.id


# ---------------------------------------------------------------- TGI


def test_tgi_tells_no_cache_usage():
    reading = read("tgi", metrics("tgi", "metrics-under-load"))
    assert reading.kv_usage_ratio is None
    assert reading.kv_used_tokens is None
    assert reading.kv_capacity_tokens == 131_072
    assert (reading.queue_depth, reading.running) == (5, 12)
    assert (reading.input_tokens_total, reading.output_tokens_total) == (20_480, 4_096)


def test_tgi_ttft_is_the_wait_plus_the_mean_prefill():
    """40 requests waited 10 s in all; a prefill took 0.2 s, a decode step does not count."""
    reading = read("tgi", metrics("tgi", "metrics-under-load"))
    assert reading.ttft is not None
    assert reading.ttft.total_s / reading.ttft.observations == pytest.approx(0.25 + 0.2)
    assert reading.ttft.observations == 40
    assert reading.tpot == Durations(1.0, 40)


NO_PREFILL = (
    b'tgi_batch_inference_duration_sum{method="prefill"} 0\n'
    b'tgi_batch_inference_duration_count{method="prefill"} 0\n'
)


@pytest.mark.parametrize("prefill", [b"", NO_PREFILL])
def test_tgi_ttft_needs_both_parts(prefill: bytes):
    queued = b"tgi_request_queue_duration_sum 1\ntgi_request_queue_duration_count 2\n"
    assert read("tgi", queued + prefill).ttft is None


# ---------------------------------------------------------------- TensorRT-LLM


def test_trtllm_the_last_step_of_each_rank_counts_and_their_one_queue_only_once():
    reading = read_trtllm(metrics("trtllm", "metrics-steps-dp2"), None)
    assert reading.queue_depth == 7
    assert reading.running == 12 + 9
    assert reading.kv_usage_ratio == pytest.approx(0.5)
    assert reading.kv_used_tokens == (600 + 400) * 32
    assert reading.kv_capacity_tokens == 2 * 1000 * 32
    assert reading.block_size_tokens == 32
    assert reading.max_sequences == 128
    assert reading.output_tokens_total is None


def test_trtllm_ranks_that_repeat_the_firsts_requests_are_told_apart_by_their_batches():
    """As `executor/iteration_stats.py` makes the rows: copies but for what the step scheduled."""
    base = '"iter":7,"numActiveRequests":3,"maxNumActiveRequests":64'
    batch = '"inflightBatchingStats":{"numScheduledRequests":%d,"numPausedRequests":%d}'
    rows = (
        f'{{{base},"attentionDpRank":{rank},"numQueuedRequests":{queued},{batch % numbers}}}'
        for rank, queued, numbers in ((0, 9, (2, 1)), (1, 0, (12, 0)), (2, 0, (0, 0)))
    )
    reading = read_trtllm(f"[{','.join(rows)}]".encode(), None)
    assert reading.running == 15
    assert reading.queue_depth == 9
    assert reading.max_sequences == 3 * 64


def test_trtllm_without_ranks():
    reading = read_trtllm(metrics("trtllm", "metrics-step-single"), None)
    assert (reading.queue_depth, reading.running) == (2, 3)
    assert reading.kv_usage_ratio == pytest.approx(0.25)


def test_trtllm_tokens_and_latencies_come_from_prometheus():
    reading = read_trtllm(
        metrics("trtllm", "metrics-steps-dp2"), metrics("trtllm", "prometheus-metrics")
    )
    assert (reading.input_tokens_total, reading.output_tokens_total) == (20_480, 4_096)
    assert reading.cached_input_tokens_total == 5_120
    assert reading.ttft == Durations(6.0, 40)
    assert reading.tpot == Durations(0.8, 40)
    assert reading.running == 21


def test_trtllm_gauges_that_stand_still_are_not_believed_when_no_step_ran():
    """The Prometheus gauges keep the last busy step; its size of the cache stays true."""
    reading = read_trtllm(b"[]", metrics("trtllm", "prometheus-metrics"))
    assert (reading.queue_depth, reading.running, reading.kv_usage_ratio) == (None, None, None)
    assert reading.kv_capacity_tokens == 32_000
    assert reading.max_sequences == 64
    assert reading.output_tokens_total == 4_096


def test_trtllm_gauges_are_all_there_is_where_steps_are_not_served():
    reading = read_trtllm(None, metrics("trtllm", "prometheus-metrics"))
    assert (reading.queue_depth, reading.running) == (7, 21)
    assert reading.kv_usage_ratio == 0.6
    assert reading.kv_used_tokens == 600 * 32


def test_trtllm_behind_a_proxy_that_exports_prometheus_under_the_usual_path():
    reading = read_trtllm(metrics("trtllm", "prometheus-metrics"), None)
    assert (reading.queue_depth, reading.running) == (7, 21)
    assert reading.output_tokens_total == 4_096


def test_trtllm_steps_of_a_model_without_a_cache():
    reading = read_trtllm(b'[{"numActiveRequests":2,"kvCacheStats":null}]', None)
    assert reading.running == 2
    assert reading.kv_usage_ratio is None
    assert reading.kv_capacity_tokens is None


def test_trtllm_early_versions_tell_the_utilization_and_no_blocks():
    reading = read_trtllm(None, b"trtllm_kv_cache_utilization 0.5\n")
    assert reading.kv_usage_ratio == 0.5
    assert reading.kv_capacity_tokens is None


# ---------------------------------------------------------------- Triton


def test_triton_reads_each_fact_by_its_label():
    reading = read("triton", metrics("triton", "metrics-under-load"))
    assert (reading.queue_depth, reading.running, reading.max_sequences) == (4, 10, 512)
    assert reading.kv_capacity_tokens == 6240 * 64
    assert reading.kv_used_tokens == 1560 * 64
    assert reading.kv_usage_ratio == pytest.approx(0.25)
    assert reading.block_size_tokens == 64
    assert reading.output_tokens_total is None
    assert reading.ttft is None


def test_triton_models_are_added_in_tokens_whatever_the_size_of_their_blocks():
    reading = read("triton", metrics("triton", "metrics-old-names-two-models"))
    assert (reading.queue_depth, reading.running) == (5, 12)
    assert reading.kv_used_tokens == 100 * 64 + 500 * 32
    assert reading.kv_capacity_tokens == 1000 * 64 + 1000 * 32


def test_triton_is_ready_at_a_path_of_its_own():
    assert dialect("triton").health_path == "/health/ready"
    assert not dialect("triton").ready(400)
