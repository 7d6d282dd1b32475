"""vLLM (V1 engine): names as of 0.32, older ones accepted."""

from __future__ import annotations

from headrace.core.model import Endpoint
from headrace.engines import sleep_mode
from headrace.engines.dialect import Dialect
from headrace.engines.exposition import Exposition, Sample, histogram_parts, parse
from headrace.engines.reading import Answers, EngineReading
from headrace.engines.usage import UsageRule

NAMES: dict[str, tuple[str, ...]] = {
    "queue_depth": ("vllm:num_requests_waiting", "vllm:num_requests_waiting_by_reason"),
    "running": ("vllm:num_requests_running",),
    "kv_usage_ratio": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "input_tokens_total": ("vllm:prompt_tokens_total",),
    "output_tokens_total": ("vllm:generation_tokens_total",),
    "cached_input_tokens_total": (
        "vllm:prompt_tokens_cached_total",
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits_total",
    ),
    "prefix_queries_tokens_total": (
        "vllm:prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries_total",
    ),
    "prefix_hits_tokens_total": (
        "vllm:prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits_total",
    ),
    "preemptions_total": ("vllm:num_preemptions_total",),
}
HISTOGRAMS: dict[str, tuple[str, ...]] = {
    "ttft": ("vllm:time_to_first_token_seconds",),
    "tpot": (
        "vllm:request_time_per_output_token_seconds",
        "vllm:time_per_output_token_seconds",
        "vllm:inter_token_latency_seconds",
    ),
}
_CONFIG = ("vllm:cache_config_info",)
_REASONS = ("vllm:num_requests_waiting_by_reason",)
_FOR_ROOM = "capacity"
_LORA = ("vllm:lora_requests_info",)
# The first V1 engines (0.8) counted blocks under the names that later counted tokens.
_IN_BLOCKS = ("vllm:gpu_prefix_cache_queries_total", "vllm:gpu_prefix_cache_hits_total")
_COUNTED_IN_BLOCKS = b"in terms of number of queried blocks"
_PARTS = tuple(histogram_parts(names) for names in HISTOGRAMS.values())
_WANTED = frozenset(name for names in (*NAMES.values(), *_PARTS, _CONFIG, _LORA) for name in names)


def read(answers: Answers) -> EngineReading:
    """Read `/metrics`. Each data-parallel rank is a value of the label `engine`: sums are taken."""
    status, body = answers.get("/metrics", (0, b""))
    if status != 200:
        return EngineReading()
    metrics = parse(body, _WANTED)
    if not metrics.samples.keys().isdisjoint(_IN_BLOCKS) and _COUNTED_IN_BLOCKS in body:
        metrics = metrics.without(_IN_BLOCKS)
    configs = metrics.of(_CONFIG)
    capacities = _capacities_tokens(configs)
    ratio, used_tokens = _kv_usage(metrics, capacities)
    return EngineReading(
        queue_depth=metrics.total(NAMES["queue_depth"]),
        waiting_for_room=_waiting_for_room(metrics),
        running=metrics.total(NAMES["running"]),
        kv_usage_ratio=ratio,
        kv_capacity_tokens=sum(capacities.values()) if capacities else None,
        kv_used_tokens=used_tokens,
        block_size_tokens=_number(configs[0], "block_size") if configs else None,
        input_tokens_total=metrics.total(NAMES["input_tokens_total"]),
        output_tokens_total=metrics.total(NAMES["output_tokens_total"]),
        cached_input_tokens_total=metrics.total(NAMES["cached_input_tokens_total"]),
        prefix_queries_tokens_total=metrics.total(NAMES["prefix_queries_tokens_total"]),
        prefix_hits_tokens_total=metrics.total(NAMES["prefix_hits_tokens_total"]),
        preemptions_total=metrics.total(NAMES["preemptions_total"]),
        ttft=metrics.durations(HISTOGRAMS["ttft"]),
        tpot=metrics.durations(HISTOGRAMS["tpot"]),
        skipped_lines=metrics.skipped_lines,
    )


def _waiting_for_room(metrics: Exposition) -> float | None:
    """Others wait for a LoRA adapter, KV cache on its way from elsewhere, or a grammar. Versions
    that do not say who waits for what are taken to know none of that, unless they tell of LoRA.
    """
    waiting = [each for each in metrics.of(_REASONS) if each.labels.get("reason") == _FOR_ROOM]
    if not waiting and not metrics.of(_LORA):
        waiting = metrics.of(NAMES["queue_depth"][:1])
    numbers = [each.value for each in waiting]
    return (sum(numbers) if all(numbers) else 0.0) if numbers else None


def _capacities_tokens(configs: list[Sample]) -> dict[str, float]:
    """Tokens of KV cache per rank.

    `kv_cache_size_tokens` is right for models whose layers keep different KV (sliding windows,
    state space) too; older versions tell only blocks and their size. One block is a placeholder
    that never holds tokens: the usage ratio is taken over the others, so capacity is as well.
    """
    capacities: dict[str, float] = {}
    for config in configs:
        blocks = _number(config, "num_gpu_blocks")
        size = _number(config, "block_size")
        tokens = _number(config, "kv_cache_size_tokens") or (blocks or 0) * (size or 0)
        if tokens and blocks and blocks > 1:
            capacities[_rank(config)] = tokens * (blocks - 1) / blocks
    return capacities


def _kv_usage(
    metrics: Exposition, capacities: dict[str, float]
) -> tuple[float | None, float | None]:
    """The usage ratio over all ranks, weighted by capacity where that is known, and its tokens.

    Several models on one page may have ranks of the same number; capacities do not say whose.
    """
    samples = metrics.ratios(NAMES["kv_usage_ratio"])
    ratios = {_rank(sample): sample.value for sample in samples}
    if not ratios:
        return None, None
    if len(ratios) < len(samples) or not ratios.keys() <= capacities.keys():
        return sum(sample.value for sample in samples) / len(samples), None
    used = sum(ratio * capacities[rank] for rank, ratio in ratios.items())
    return used / sum(capacities[rank] for rank in ratios), used


def _rank(sample: Sample) -> str:
    return sample.labels.get("engine", "0")


def _number(config: Sample, label: str) -> float | None:
    """A number out of an info metric's label, where Python's `None` is written as a word."""
    text = config.labels.get(label, "")
    return float(text) if text.isdecimal() else None


_LAST_CHUNK = UsageRule(
    where="the last chunk, whose `choices` is empty; it covers all choices. With the client's own "
    "`continuous_usage_stats` also every chunk: running, per choice",
    inject_usage=True,
)

DIALECT = Dialect(
    name="vllm",
    title="vLLM",
    evidence="answers of vLLM 0.32.0; older names from its sources",
    read=read,
    metrics_paths=("/metrics",),
    sources={
        **NAMES,
        **HISTOGRAMS,
        "waiting_for_room": (
            'vllm:num_requests_waiting_by_reason{reason="capacity"}',
            "vllm:num_requests_waiting, where no LoRA adapters are told of",
        ),
        "kv_capacity_tokens": ("vllm:cache_config_info{num_gpu_blocks, block_size}",),
        "kv_used_tokens": ("kv_usage_ratio x kv_capacity_tokens",),
        "block_size_tokens": ("vllm:cache_config_info{block_size}",),
    },
    # Of the others an observation is a token, not a request.
    histograms={"ttft": HISTOGRAMS["ttft"], "tpot": HISTOGRAMS["tpot"][:1]},
    usage_rules={
        Endpoint.CHAT: _LAST_CHUNK,
        Endpoint.COMPLETIONS: _LAST_CHUNK,
        Endpoint.EMBEDDINGS: UsageRule(where="the body"),
        Endpoint.RESPONSES: UsageRule(where="`response.completed` or `response.incomplete`"),
        Endpoint.MESSAGES: UsageRule(
            where="input from `message_start`, output from `message_delta`"
        ),
    },
    derived=frozenset({"kv_used_tokens"}),
    refuses_other_models=True,
    sleep_mode=sleep_mode.VLLM,
    sends_at_once=True,
)
