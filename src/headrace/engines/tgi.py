"""Hugging Face Text Generation Inference (TGI): names as of 3.3."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.exposition import Exposition, histogram_parts, parse
from headrace.engines.reading import Answers, Durations, EngineReading
from headrace.engines.usage import UsageRule

NAMES: dict[str, tuple[str, ...]] = {
    "queue_depth": ("tgi_queue_size",),
    "running": ("tgi_batch_current_size",),
    # The token budget of a batch: what is left of the memory after warm-up, in tokens.
    "kv_capacity_tokens": ("tgi_batch_max_total_tokens",),
    # Histograms of tokens per request: their sums count tokens.
    "input_tokens_total": ("tgi_request_input_length_sum",),
    "output_tokens_total": ("tgi_request_generated_tokens_sum",),
}
_QUEUED = ("tgi_request_queue_duration",)
_INFERENCE = ("tgi_batch_inference_duration",)
_PER_TOKEN = ("tgi_request_mean_time_per_token_duration",)
_PARTS = tuple(histogram_parts(names) for names in (_QUEUED, _INFERENCE, _PER_TOKEN))
_WANTED = frozenset(name for names in (*NAMES.values(), *_PARTS) for name in names)


def read(answers: Answers) -> EngineReading:
    """Read `/metrics`. Nothing tells how much of the KV cache is in use."""
    status, body = answers.get("/metrics", (0, b""))
    if status != 200:
        return EngineReading()
    metrics = parse(body, _WANTED)
    return EngineReading(
        queue_depth=metrics.total(NAMES["queue_depth"]),
        running=metrics.total(NAMES["running"]),
        kv_capacity_tokens=metrics.total(NAMES["kv_capacity_tokens"]),
        input_tokens_total=metrics.total(NAMES["input_tokens_total"]),
        output_tokens_total=metrics.total(NAMES["output_tokens_total"]),
        ttft=_ttft(metrics),
        tpot=metrics.durations(_PER_TOKEN),
        skipped_lines=metrics.skipped_lines,
    )


def _ttft(metrics: Exposition) -> Durations | None:
    """Time in the queue plus the mean prefill, for each request that ended.

    TGI observes the wait per request and the prefill per batch. The mean over batches weighs
    large and small ones alike, so this is an estimate: low where large batches are the slow ones.
    """
    queued = metrics.durations(_QUEUED)
    prefill = metrics.durations(_INFERENCE, _is_prefill)
    if queued is None or prefill is None or not prefill.observations:
        return None
    prefill_s = prefill.total_s / prefill.observations
    return Durations(queued.total_s + queued.observations * prefill_s, queued.observations)


def _is_prefill(labels: Mapping[str, str]) -> bool:
    return labels.get("method") == "prefill"


_NOT_SERVED = UsageRule(where="TGI does not serve this")

DIALECT = Dialect(
    name="tgi",
    title="Text Generation Inference",
    evidence="the sources of TGI 3.3.6 (github.com/huggingface/text-generation-inference)",
    unverified=True,
    read=read,
    metrics_paths=("/metrics",),
    sources={
        **NAMES,
        "ttft": ("tgi_request_queue_duration + mean of tgi_batch_inference_duration{prefill}",),
        "tpot": _PER_TOKEN,
    },
    histograms={"tpot": _PER_TOKEN},
    usage_rules={
        Endpoint.CHAT: UsageRule(
            where="the last chunk, whose `choices` is empty", inject_usage=True
        ),
        # It comes unasked as well. Asking makes the gateway take it out again for clients
        # that did not want it, as the API has it; TGI passes over the request.
        Endpoint.COMPLETIONS: UsageRule(
            where="the last chunk of each prompt, beside its `finish_reason`",
            inject_usage=True,
            usage_per_choice=True,
        ),
        Endpoint.EMBEDDINGS: _NOT_SERVED,
        Endpoint.RESPONSES: _NOT_SERVED,
        Endpoint.MESSAGES: _NOT_SERVED,
    },
    derived=frozenset({"ttft"}),
)
