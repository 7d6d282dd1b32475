"""TensorRT-LLM's `trtllm-serve`: names as of 2026.

Statistics of the engine's steps want `enable_iter_perf_stats`, the Prometheus metrics
`return_perf_metrics`; a server may be started with either, both or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.exposition import Exposition, histogram_parts, parse
from headrace.engines.reading import Answers, EngineReading
from headrace.engines.usage import UsageRule
from headrace.engines.wire import decode

COUNTERS: dict[str, tuple[str, ...]] = {
    "input_tokens_total": ("trtllm_prompt_tokens_total",),
    "output_tokens_total": ("trtllm_generation_tokens_total",),
    "cached_input_tokens_total": ("trtllm_prompt_cached_tokens_total",),
}
HISTOGRAMS: dict[str, tuple[str, ...]] = {
    "ttft": ("trtllm_time_to_first_token_seconds",),
    "tpot": ("trtllm_time_per_output_token_seconds",),
}
_WAITING = ("trtllm_num_requests_waiting",)
_RUNNING = ("trtllm_num_requests_running",)
_UTILIZATION = ("trtllm_kv_cache_utilization",)
_USED_BLOCKS = ("trtllm_kv_cache_used_blocks",)
_MAX_BLOCKS = ("trtllm_kv_cache_max_blocks",)
_BLOCK_TOKENS = ("trtllm_kv_cache_tokens_per_block",)
_MAX_ACTIVE = ("trtllm_max_num_active_requests",)
_GAUGES = (_WAITING, _RUNNING, _UTILIZATION, _USED_BLOCKS, _MAX_BLOCKS, _BLOCK_TOKENS, _MAX_ACTIVE)
_PARTS = tuple(histogram_parts(names) for names in HISTOGRAMS.values())
_WANTED = frozenset(name for names in (*COUNTERS.values(), *_PARTS, *_GAUGES) for name in names)


class _KvCacheStats(msgspec.Struct, rename="camel"):
    max_num_blocks: float = 0
    used_num_blocks: float = 0
    tokens_per_block: float = 0


class _BatchingStats(msgspec.Struct, rename="camel"):
    num_scheduled_requests: float = 0
    num_paused_requests: float = 0


class _Step(msgspec.Struct, rename="camel"):
    """The statistics of one step of one data-parallel rank."""

    attention_dp_rank: int | None = None
    num_queued_requests: float | None = None
    num_active_requests: float | None = None
    max_num_active_requests: float | None = None
    kv_cache_stats: _KvCacheStats | None = None
    inflight_batching_stats: _BatchingStats | None = None


_STEPS = msgspec.json.Decoder(list[_Step])


@dataclass(frozen=True, slots=True)
class _State:
    """What the engine is at, from either source."""

    queue_depth: float | None = None
    running: float | None = None
    kv_usage_ratio: float | None = None
    kv_used_tokens: float | None = None
    kv_capacity_tokens: float | None = None
    block_size_tokens: float | None = None
    max_sequences: float | None = None


def read(answers: Answers) -> EngineReading:
    """Read the steps from `/metrics` and the rest from `/prometheus/metrics`.

    The Prometheus gauges are of the last step that a finished request brought to light: they
    stand still during a long answer and keep "1 running" when the engine falls idle. So where
    there are steps, these tell what changes, and no step since the last look tells nothing.
    Behind a proxy that exports the names under `/metrics` (Dynamo) the gauges are all there is.
    """
    status, body = answers.get("/metrics", (0, b""))
    metrics_body = body if status == 200 else b""
    steps = decode(_STEPS, metrics_body)
    status, body = answers.get("/prometheus/metrics", (0, b""))
    exported = parse(body if status == 200 else metrics_body, _WANTED)
    stepped, gauges = _state_of(steps or ()), _state_exported(exported)
    now = gauges if steps is None else stepped
    size = stepped if stepped.kv_capacity_tokens else gauges
    return EngineReading(
        queue_depth=now.queue_depth,
        running=now.running,
        kv_usage_ratio=now.kv_usage_ratio,
        kv_used_tokens=now.kv_used_tokens,
        kv_capacity_tokens=size.kv_capacity_tokens,
        block_size_tokens=size.block_size_tokens,
        max_sequences=stepped.max_sequences or gauges.max_sequences,
        input_tokens_total=exported.total(COUNTERS["input_tokens_total"]),
        output_tokens_total=exported.total(COUNTERS["output_tokens_total"]),
        cached_input_tokens_total=exported.total(COUNTERS["cached_input_tokens_total"]),
        ttft=exported.durations(HISTOGRAMS["ttft"]),
        tpot=exported.durations(HISTOGRAMS["tpot"]),
        skipped_lines=exported.skipped_lines,
    )


def _state_of(steps: Iterable[_Step]) -> _State:
    """The last step of each data-parallel rank, added up.

    All ranks are fed from one queue: each rank tells the whole of it, or only the first does.
    """
    last = tuple({step.attention_dp_rank: step for step in steps}.values())
    caches = [step.kv_cache_stats for step in last if step.kv_cache_stats is not None]
    blocks = sum(cache.max_num_blocks for cache in caches)
    used = sum(cache.used_num_blocks for cache in caches)
    queued = [step.num_queued_requests for step in last if step.num_queued_requests is not None]
    return _State(
        queue_depth=max(queued, default=None),
        running=_running(last),
        kv_usage_ratio=used / blocks if blocks > 0 else None,
        kv_used_tokens=_sum(cache.used_num_blocks * cache.tokens_per_block for cache in caches),
        kv_capacity_tokens=_sum(cache.max_num_blocks * cache.tokens_per_block for cache in caches),
        block_size_tokens=caches[0].tokens_per_block if caches else None,
        max_sequences=_sum(step.max_num_active_requests for step in last),
    )


def _running(last: Sequence[_Step]) -> float | None:
    """Requests in all ranks' batches.

    Newer versions copy the first rank's `numActiveRequests` to the others; of each rank itself is
    then only what of its batch ran in this step or was paused.
    """
    active = [step.num_active_requests for step in last]
    batches = [step.inflight_batching_stats for step in last]
    if len(last) > 1 and len({*active}) == 1 and None not in batches:
        told = (batch for batch in batches if batch is not None)
        return sum(each.num_scheduled_requests + each.num_paused_requests for each in told)
    return _sum(active)


def _sum(values: Iterable[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if told else None


def _state_exported(metrics: Exposition) -> _State:
    """The Prometheus gauges; early versions told the utilization and no blocks.

    Several engines behind one address are one model's, with blocks of one size.
    """
    block_tokens = next((sample.value for sample in metrics.of(_BLOCK_TOKENS)), None)
    return _State(
        queue_depth=metrics.total(_WAITING),
        running=metrics.total(_RUNNING),
        kv_usage_ratio=_utilization(metrics),
        kv_used_tokens=_tokens(metrics.total(_USED_BLOCKS), block_tokens),
        kv_capacity_tokens=_tokens(metrics.total(_MAX_BLOCKS), block_tokens),
        block_size_tokens=block_tokens,
        max_sequences=metrics.total(_MAX_ACTIVE),
    )


def _utilization(metrics: Exposition) -> float | None:
    """Of all engines on the page together, by their blocks where these are told."""
    ratios = [sample.value for sample in metrics.ratios(_UTILIZATION)]
    used, most = metrics.total(_USED_BLOCKS), metrics.total(_MAX_BLOCKS)
    if len(ratios) > 1 and used is not None and most and used <= most:
        return used / most
    return sum(ratios) / len(ratios) if ratios else None


def _tokens(blocks: float | None, block_tokens: float | None) -> float | None:
    return None if blocks is None or block_tokens is None else blocks * block_tokens


DIALECT = Dialect(
    name="trtllm",
    title="TensorRT-LLM",
    evidence="the sources of TensorRT-LLM as of 2026 (github.com/NVIDIA/TensorRT-LLM: "
    "`tensorrt_llm/metrics/collector.py` at 050f80de, `tensorrt_llm/serve/openai_server.py`, "
    "`tensorrt_llm/executor/iteration_stats.py`)",
    unverified=True,
    read=read,
    metrics_paths=("/metrics", "/prometheus/metrics"),
    sources={
        **COUNTERS,
        **HISTOGRAMS,
        "queue_depth": ("GET /metrics: numQueuedRequests", *_WAITING),
        "running": (
            "GET /metrics: numActiveRequests",
            "GET /metrics: numScheduledRequests + numPausedRequests, where ranks tell the same",
            *_RUNNING,
        ),
        "kv_usage_ratio": (
            "GET /metrics: kvCacheStats.usedNumBlocks / maxNumBlocks",
            *_UTILIZATION,
        ),
        "kv_used_tokens": (
            "GET /metrics: kvCacheStats.usedNumBlocks x tokensPerBlock",
            f"{_USED_BLOCKS[0]} x {_BLOCK_TOKENS[0]}",
        ),
        "kv_capacity_tokens": (
            "GET /metrics: kvCacheStats.maxNumBlocks x tokensPerBlock",
            f"{_MAX_BLOCKS[0]} x {_BLOCK_TOKENS[0]}",
        ),
        "block_size_tokens": ("GET /metrics: kvCacheStats.tokensPerBlock", *_BLOCK_TOKENS),
        "max_sequences": ("GET /metrics: maxNumActiveRequests", *_MAX_ACTIVE),
    },
    histograms=HISTOGRAMS,
    usage_rules={
        Endpoint.CHAT: UsageRule(
            where="the last chunk, whose `choices` is empty; it covers all choices. With the "
            "client's own `continuous_usage_stats` also every chunk: running, per choice",
            inject_usage=True,
        ),
        Endpoint.COMPLETIONS: UsageRule(
            where="a chunk per prompt, whose `choices` is empty",
            inject_usage=True,
            usage_per_choice=True,
        ),
        Endpoint.EMBEDDINGS: UsageRule(where="the body"),
        Endpoint.RESPONSES: UsageRule(where="`response.completed`"),
        Endpoint.MESSAGES: UsageRule(
            where="input from `message_start` (with `cache_read_input_tokens`), output from "
            "`message_delta`"
        ),
    },
    derived=frozenset({"kv_used_tokens", "kv_capacity_tokens"}),
    sends_at_once=True,
)
