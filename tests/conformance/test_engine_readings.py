"""What dialects make of the metrics, models, health and errors of real engines."""

from __future__ import annotations

from dataclasses import asdict

import msgspec
import pytest

from headrace.engines.reading import Durations, EngineReading, ListedModel, Refusal
from headrace.engines.registry import DIALECTS, detect, dialect
from tests.conformance.captures import load, metrics

VLLM_BUSY = "metrics-under-load-14conc-8seqs"
WAITS = 'vllm:num_requests_waiting_by_reason{{engine="{}",reason="{}"}} {}'
LLAMACPP_BUSY = "metrics-under-load-8conc-4slots"


def read_vllm(text: bytes) -> EngineReading:
    return dialect("vllm").read({"/metrics": (200, text)})


def read_llamacpp(metrics_text: bytes | None, slots: bytes | None) -> EngineReading:
    answers: dict[str, tuple[int, bytes]] = {}
    if metrics_text is not None:
        answers["/metrics"] = (200, metrics_text)
    if slots is not None:
        answers["/slots"] = (200, slots)
    return dialect("llamacpp").read(answers)


def test_vllm_under_load():
    reading = read_vllm(metrics("vllm", VLLM_BUSY))
    assert reading.kv_usage_ratio == pytest.approx(0.0440771349862259)
    # 364 blocks of 128, one of them a placeholder; 16 blocks are in use, exactly.
    assert reading.kv_capacity_tokens == 363 * 128
    assert reading.kv_used_tokens == pytest.approx(16 * 128)
    assert (reading.queue_depth, reading.waiting_for_room) == (6, 6)
    assert reading.running == 8
    assert reading.block_size_tokens == 128
    assert reading.max_sequences is None
    assert (reading.input_tokens_total, reading.output_tokens_total) == (6824, 981)
    assert reading.cached_input_tokens_total == 512
    assert (reading.prefix_hits_tokens_total, reading.prefix_queries_tokens_total) == (512, 6824)
    assert reading.preemptions_total == 0
    assert reading.ttft == Durations(50.718034744262695, 35)
    assert reading.tpot == Durations(1.3226357229330994, 27)
    assert reading.skipped_lines == 0


def test_vllm_with_a_nearly_full_cache_tells_its_preemption():
    reading = read_vllm(metrics("vllm", "variant2-metrics-kv-nearly-full"))
    assert reading.preemptions_total == 1
    assert reading.block_size_tokens == 32
    assert reading.kv_capacity_tokens == 79 * 32
    assert reading.kv_used_tokens == pytest.approx(47 * 32)


def test_vllm_ranks_are_summed_and_the_ratio_is_weighted_by_capacity():
    reading = read_vllm(
        b'vllm:num_requests_waiting{engine="0"} 3\n'
        b'vllm:num_requests_waiting{engine="1"} 4\n'
        b'vllm:kv_cache_usage_perc{engine="0"} 0.9\n'
        b'vllm:kv_cache_usage_perc{engine="1"} 0.1\n'
        b'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="301"} 1\n'
        b'vllm:cache_config_info{engine="1",block_size="16",num_gpu_blocks="101"} 1\n'
    )
    assert reading.queue_depth == 7
    assert reading.kv_capacity_tokens == 400 * 16
    assert reading.kv_usage_ratio == pytest.approx((0.9 * 300 + 0.1 * 100) / 400)


def test_vllm_names_of_old_versions_are_read_and_never_added_to_the_new():
    old = read_vllm(
        b"vllm:gpu_cache_usage_perc 0.25\n"
        b"vllm:gpu_prefix_cache_hits_total 5\n"
        b"vllm:gpu_prefix_cache_queries_total 9\n"
        b'vllm:num_requests_waiting_by_reason{reason="capacity"} 2\n'
        b'vllm:num_requests_waiting_by_reason{reason="deferred"} 1\n'
    )
    assert old.kv_usage_ratio == 0.25
    assert (old.prefix_hits_tokens_total, old.prefix_queries_tokens_total) == (5, 9)
    assert old.cached_input_tokens_total == 5
    assert (old.queue_depth, old.waiting_for_room) == (3, 2)
    both = read_vllm(b"vllm:gpu_cache_usage_perc 0.25\nvllm:kv_cache_usage_perc 0.5\n")
    assert both.kv_usage_ratio == 0.5


@pytest.mark.parametrize(
    ("lines", "waiting_for_room"),
    [
        ((), None),
        (("vllm:num_requests_waiting 3",), 3),
        # Without reasons nobody knows who waits for an adapter.
        (("vllm:num_requests_waiting 3", 'vllm:lora_requests_info{max_lora="1"} 1'), None),
        ((WAITS.format(0, "capacity", 3), WAITS.format(0, "deferred", 5)), 3),
        ((WAITS.format(0, "capacity", 3), WAITS.format(1, "capacity", 4)), 7),
        # The other rank may have places that are free.
        ((WAITS.format(0, "capacity", 3), WAITS.format(1, "capacity", 0)), 0),
    ],
)
def test_vllm_tells_who_waits_for_a_place_or_the_cache(
    lines: tuple[str, ...], waiting_for_room: float | None
):
    assert read_vllm("\n".join(lines).encode()).waiting_for_room == waiting_for_room


def test_vllm_cache_counts_in_blocks_are_not_taken_for_tokens():
    reading = read_vllm(
        b"# HELP vllm:gpu_prefix_cache_queries_total GPU prefix cache queries, in terms of number "
        b"of queried blocks.\n"
        b"vllm:gpu_prefix_cache_queries_total 9\nvllm:gpu_prefix_cache_hits_total 5\n"
        b"vllm:prompt_tokens_total 200\n"
    )
    assert reading.input_tokens_total == 200
    assert reading.cached_input_tokens_total is None
    assert reading.prefix_hits_tokens_total is None
    assert reading.prefix_queries_tokens_total is None


def test_llamacpp_under_load():
    slots = load("llamacpp", "slots-under-load").body
    reading = read_llamacpp(metrics("llamacpp", LLAMACPP_BUSY), slots)
    assert reading.queue_depth == 4
    assert reading.running == 4
    assert reading.max_sequences == 4
    assert reading.kv_capacity_tokens == 4 * 2048
    assert reading.kv_used_tokens == 4 * 150
    assert reading.kv_usage_ratio == 600 / 8192
    # The counter of prompt tokens leaves the 2629 cached ones out.
    assert reading.input_tokens_total == 13316 + 2629
    assert reading.cached_input_tokens_total == 2629
    assert reading.output_tokens_total == 2810


def test_llamacpp_generated_tokens_are_not_counted_twice():
    """11 prompt and 53 generated tokens: the slot says 64 and 53, and holds 64."""
    body = load("llamacpp", "slots-generating").body
    (slot,) = [slot for slot in msgspec.json.decode(body) if slot["is_processing"]]
    assert slot["n_prompt_tokens"] == 64
    assert slot["next_token"][0]["n_decoded"] == 53
    assert read_llamacpp(None, body).kv_used_tokens == 64


def test_llamacpp_of_before_counts_generated_tokens_apart():
    body = (
        b'[{"n_ctx":100,"is_processing":true,"n_prompt_tokens":11,"n_prompt_tokens_processed":11,'
        b'"next_token":{"n_decoded":53}}]'
    )
    assert read_llamacpp(None, body).kv_used_tokens == 64


def test_llamacpp_after_a_context_shift_holds_no_more_than_its_context():
    body = (
        b'[{"n_ctx":100,"is_processing":true,"n_prompt_tokens":80,"n_prompt_tokens_processed":60,'
        b'"next_token":[{"n_decoded":90}]}]'
    )
    assert read_llamacpp(None, body).kv_usage_ratio == 1


def test_llamacpp_what_idle_slots_retain_is_not_in_use():
    body = load("llamacpp", "slots-idle").body
    assert any(slot.get("n_prompt_tokens") for slot in msgspec.json.decode(body))
    reading = read_llamacpp(None, body)
    assert reading.kv_usage_ratio == 0
    assert reading.running == 0


def test_llamacpp_without_slots_tells_no_cache():
    reading = read_llamacpp(metrics("llamacpp", LLAMACPP_BUSY), None)
    assert reading.queue_depth == 4
    assert reading.kv_usage_ratio is None
    assert reading.kv_capacity_tokens is None


@pytest.mark.parametrize(
    ("engine", "listed"),
    [
        ("vllm", ListedModel("smollm2-135m-instruct", None, 2048, (), "vllm")),
        ("llamacpp", ListedModel("smollm2-135m-instruct", None, 2048, (), "llamacpp")),
    ],
)
def test_listed_models(engine: str, listed: ListedModel):
    assert dialect(engine).models(load(engine, "models").body) == [listed]


def test_an_adapter_names_its_base_model():
    body = (
        b'{"object":"list","data":[{"id":"base","parent":null,"max_model_len":4096},'
        b'{"id":"adapter","root":"/adapters/a","parent":"base","max_model_len":null}]}'
    )
    base, adapter = dialect("vllm").models(body)
    assert (base.parent, base.max_context_tokens) == (None, 4096)
    assert (adapter.id, adapter.parent) == ("adapter", "base")


def test_aliases_are_names_beside_the_id():
    body = b'{"data":[{"id":"a","aliases":["a","b"],"meta":{"n_ctx":512,"n_ctx_train":8192}}]}'
    (model,) = dialect("llamacpp").models(body)
    assert model.aliases == ("b",)
    assert model.max_context_tokens == 512


def test_readiness():
    assert not dialect("llamacpp").ready(load("llamacpp", "health-while-loading").status)
    assert dialect("llamacpp").ready(load("llamacpp", "get-health").status)
    assert dialect("vllm").ready(load("vllm", "get-health").status)


def test_only_llamacpp_closes_after_a_stream():
    closing = [name for name in DIALECTS if dialect(name).closes_after_stream]
    assert closing == ["llamacpp"]


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("vllm/variant2-err-queue-full", Refusal.BUSY),
        ("sglang/err-queue-full", Refusal.BUSY),
        ("sglang/err-context-overflow", Refusal.CLIENT),
        ("tgi/err-overloaded", Refusal.BUSY),
        ("tgi/err-generation", Refusal.BROKEN),
        ("tgi/err-validation", Refusal.CLIENT),
        ("trtllm/err-bad-request", Refusal.CLIENT),
        ("vllm/err-unknown-model", Refusal.ABSENT),
        ("vllm/err-context-overflow", Refusal.CLIENT),
        ("vllm/err-404", Refusal.CLIENT),
        ("llamacpp/health-while-loading", Refusal.LOADING),
        ("llamacpp/slots-fail_on_no_slot", Refusal.BUSY),
        ("llamacpp/err-context-overflow", Refusal.CLIENT),
        ("llamacpp/err-embeddings-not-supported", Refusal.CLIENT),
    ],
)
def test_refusals(name: str, refusal: Refusal):
    capture = load(*name.split("/"))
    assert dialect(capture.dialect).classify_error(capture.status, capture.body) is refusal


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        # vLLM up to 0.10, vLLM after it, Ollama, and others after OpenAI's own words.
        (b'{"object":"error","message":"The model `m` does not exist.","code":404}', "absent"),
        (b'{"error":{"message":"The model `m` does not exist.","param":null}}', "absent"),
        (b'{"error":"model \\"m\\" not found, try pulling it first"}', "absent"),
        (b'{"error":{"message":"Response with id \'resp_1\' not found."}}', "client"),
        (b'{"detail":"Not Found"}', "client"),
        (b"not found", "client"),
        (b'{"error":{"message":"","param":"model"},"message":{"text":"gone"}}', "absent"),
        # Only the beginning is read: what engines repeat of a request may be long.
        (b'{"error":{"message":"%b The model `m` does not exist."}}' % (b"x" * 1024), "client"),
    ],
)
def test_a_model_that_a_replica_lacks_is_not_the_clients_fault(body: bytes, refusal: str):
    expected = {"absent": Refusal.ABSENT, "client": Refusal.CLIENT}[refusal]
    assert dialect("openai").classify_error(404, body) is expected


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (401, Refusal.BROKEN),
        (429, Refusal.BUSY),
        (500, Refusal.BROKEN),
        (502, Refusal.BROKEN),
        (504, Refusal.BROKEN),
    ],
)
def test_refusals_told_by_status_alone(status: int, refusal: Refusal):
    assert dialect("openai").classify_error(status, b"<html>") is refusal


@pytest.mark.parametrize("engine", ["vllm", "llamacpp"])
def test_an_engine_is_known_by_its_metrics_or_by_the_owner_of_its_models(engine: str):
    assert detect({"/metrics": (200, metrics(engine, "metrics-idle"))}) == engine
    assert detect({"/v1/models": (200, load(engine, "models").body)}) == engine


@pytest.mark.parametrize(
    ("engine", "path", "name"),
    [
        ("sglang", "/metrics", "metrics-old-names"),
        ("tgi", "/metrics", "metrics-under-load"),
        ("trtllm", "/prometheus/metrics", "prometheus-metrics"),
        ("triton", "/metrics", "metrics-under-load"),
        ("triton", "/metrics", "metrics-old-names-two-models"),
    ],
)
def test_a_published_engine_is_known_by_its_metrics(engine: str, path: str, name: str):
    assert detect({path: (200, metrics(engine, name))}) == engine


@pytest.mark.parametrize("engine", ["sglang", "trtllm", "triton"])
def test_a_published_engine_is_known_by_the_owner_of_its_models(engine: str):
    assert detect({"/v1/models": (200, load(engine, "models").body)}) == engine


def test_triton_is_not_taken_for_the_engine_in_its_backend():
    both = b"vllm:num_requests_running 1\nnv_inference_count 3\n"
    assert detect({"/metrics": (200, both)}) == "triton"


def test_an_engine_that_gives_nothing_away_is_taken_for_plain_openai():
    assert detect({}) == "openai"
    assert detect({"/metrics": (404, b"no"), "/v1/models": (200, b"<html>")}) == "openai"
    assert detect({"/v1/models": (200, b'{"data":[{"id":"m","owned_by":"me"}]}')}) == "openai"


def test_an_unknown_dialect_is_an_error_with_the_known_ones():
    with pytest.raises(
        ValueError, match="'vlm' is not known; use one of: llamacpp, openai, sglang"
    ):
        dialect("vlm")


@pytest.mark.parametrize(
    ("engine", "answers"),
    [
        ("vllm", {"/metrics": metrics("vllm", VLLM_BUSY)}),
        (
            "llamacpp",
            {
                "/metrics": metrics("llamacpp", LLAMACPP_BUSY),
                "/slots": load("llamacpp", "slots-under-load").body,
            },
        ),
        ("sglang", {"/metrics": metrics("sglang", "metrics-dp2-tp2-all-schedulers")}),
        ("tgi", {"/metrics": metrics("tgi", "metrics-under-load")}),
        (
            "trtllm",
            {
                "/metrics": metrics("trtllm", "metrics-steps-dp2"),
                "/prometheus/metrics": metrics("trtllm", "prometheus-metrics"),
            },
        ),
        ("triton", {"/metrics": metrics("triton", "metrics-under-load")}),
    ],
)
def test_what_is_read_and_what_is_documented_are_the_same(engine: str, answers: dict[str, bytes]):
    reading = dialect(engine).read({path: (200, body) for path, body in answers.items()})
    told = {name for name, value in asdict(reading).items() if value is not None}
    assert told - {"skipped_lines"} == set(dialect(engine).sources)
    assert set(answers) == set(dialect(engine).metrics_paths)
