"""SGLang: names as of 0.5.23, older ones accepted. Needs `--enable-metrics`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.exposition import Exposition, Sample, histogram_parts, parse
from headrace.engines.reading import Answers, EngineReading
from headrace.engines.usage import UsageRule

NAMES: dict[str, tuple[str, ...]] = {
    "running": ("sglang:num_running_reqs",),
    "kv_usage_ratio": ("sglang:token_usage",),
    "kv_used_tokens": ("sglang:kv_used_tokens", "sglang:num_used_tokens"),
    "input_tokens_total": ("sglang:prompt_tokens_total",),
    "output_tokens_total": ("sglang:generation_tokens_total",),
    "cached_input_tokens_total": ("sglang:cached_tokens_total",),
    "preemptions_total": ("sglang:num_retracted_requests_total",),
}
HISTOGRAMS: dict[str, tuple[str, ...]] = {
    "ttft": ("sglang:time_to_first_token_seconds",),
    "tpot": (
        "sglang:request_time_per_output_token_seconds",
        "sglang:time_per_output_token_seconds",
        "sglang:inter_token_latency_seconds",
    ),
}
# A request stands in one of these at a time. What a prefill replica has computed and is still
# sending (`num_prefill_inflight_queue_reqs`) waits for no place in a batch.
_QUEUES = (
    "sglang:num_queue_reqs",
    "sglang:num_grammar_queue_reqs",
    "sglang:num_prefill_bootstrap_queue_reqs",
    "sglang:num_decode_prealloc_queue_reqs",
    "sglang:num_decode_transfer_queue_reqs",
)
_CAPACITY = ("sglang:max_total_num_tokens",)
_PAGE_SIZE, _PAGES = ("sglang:page_size",), ("sglang:num_pages",)
_CONFIG = ("sglang:cache_config_info",)
_PARTS = tuple(histogram_parts(names) for names in HISTOGRAMS.values())
_WANTED = frozenset(
    name
    for names in (*NAMES.values(), *_PARTS, _QUEUES, _CAPACITY, _PAGE_SIZE, _PAGES, _CONFIG)
    for name in names
)

# Ranks that share the work of one request and each tell the same number about it. Any other
# label that differs (`dp_rank`) tells of work of its own.
_SHARING = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})

Group = tuple[tuple[str, str], ...]
"""The labels that ranks of one data-parallel replica have in common."""


def read(answers: Answers) -> EngineReading:
    """Read `/metrics`. Ranks that share work count once, data-parallel ones are added."""
    status, body = answers.get("/metrics", (0, b""))
    if status != 200:
        return EngineReading()
    metrics = parse(body, _WANTED)
    capacities = _capacities_tokens(metrics)
    page_sizes = _page_sizes_tokens(metrics)
    return EngineReading(
        queue_depth=_queue_depth(metrics),
        running=_total(metrics, NAMES["running"]),
        kv_usage_ratio=_kv_usage_ratio(metrics, capacities),
        kv_capacity_tokens=sum(capacities.values()) if capacities else None,
        kv_used_tokens=_total(metrics, NAMES["kv_used_tokens"]),
        block_size_tokens=next(iter(page_sizes.values()), None),
        # These come from the one process that takes requests in, whatever the ranks behind it.
        input_tokens_total=metrics.total(NAMES["input_tokens_total"]),
        output_tokens_total=metrics.total(NAMES["output_tokens_total"]),
        cached_input_tokens_total=metrics.total(NAMES["cached_input_tokens_total"]),
        preemptions_total=_total(metrics, NAMES["preemptions_total"]),
        ttft=metrics.durations(HISTOGRAMS["ttft"], _is_streamed),
        tpot=metrics.durations(HISTOGRAMS["tpot"]),
        skipped_lines=metrics.skipped_lines,
    )


def _is_streamed(labels: Mapping[str, str]) -> bool:
    """An answer that is not streamed has no first token that anybody sees."""
    return labels.get("is_streaming") != "false"


def _itself(sample: Sample) -> float:
    return sample.value


def _by_group(
    samples: Sequence[Sample], value: Callable[[Sample], float | None] = _itself
) -> dict[Group, float]:
    """One number per data-parallel replica.

    Its ranks are a step apart at most: the greatest is the newest, or the fullest. With priority
    scheduling a queue is told as a whole, with an empty `priority`, and once more by priority.
    """
    groups: dict[Group, float] = {}
    for sample in samples:
        number = value(sample)
        if number is None or sample.labels.get("priority"):
            continue
        group = _group(sample)
        groups[group] = max(number, groups.get(group, number))
    return groups


def _group(sample: Sample) -> Group:
    ignored = _SHARING | {"page_size", "num_pages"} if sample.name in _CONFIG else _SHARING
    return tuple(sorted(item for item in sample.labels.items() if item[0] not in ignored))


def _total(metrics: Exposition, names: Sequence[str]) -> float | None:
    groups = _by_group(metrics.of(names))
    return sum(groups.values()) if groups else None


def _queue_depth(metrics: Exposition) -> float | None:
    queues = [_total(metrics, (name,)) for name in _QUEUES]
    told = [queue for queue in queues if queue is not None]
    return sum(told) if told else None


def _capacities_tokens(metrics: Exposition) -> dict[Group, float]:
    """Tokens of KV cache per data-parallel replica; told whole, or as pages and their size."""
    told = _by_group(metrics.of(_CAPACITY))
    if not told:
        sizes = _page_sizes_tokens(metrics)
        pages = _by_group(metrics.of(_PAGES)) or _by_group(metrics.of(_CONFIG), _label("num_pages"))
        told = {group: pages[group] * sizes[group] for group in pages.keys() & sizes.keys()}
    return {group: tokens for group, tokens in told.items() if tokens > 0}


def _page_sizes_tokens(metrics: Exposition) -> dict[Group, float]:
    return _by_group(metrics.of(_PAGE_SIZE)) or _by_group(metrics.of(_CONFIG), _label("page_size"))


def _label(name: str) -> Callable[[Sample], float | None]:
    """A number out of an info metric's label."""

    def number(sample: Sample) -> float | None:
        text = sample.labels.get(name, "")
        return float(text) if text.isdecimal() else None

    return number


def _kv_usage_ratio(metrics: Exposition, capacities: Mapping[Group, float]) -> float | None:
    """Usage over all data-parallel replicas, weighted by capacity where that is known.

    `token_usage` is that of the fullest kind of cache a model has (full attention, sliding
    window, state space): it may be above `kv_used_tokens` / `kv_capacity_tokens`, which tell of
    full attention alone.
    """
    ratios = _by_group(metrics.ratios(NAMES["kv_usage_ratio"]))
    if not ratios:
        return None
    if not ratios.keys() <= capacities.keys():
        return sum(ratios.values()) / len(ratios)
    used = sum(ratio * capacities[group] for group, ratio in ratios.items())
    return used / sum(capacities[group] for group in ratios)


_LAST_CHUNK = UsageRule(
    where="the last chunk, whose `choices` is empty; it covers all choices and prompts. Cached "
    "tokens only with `--enable-cache-report`",
    inject_usage=True,
)

DIALECT = Dialect(
    name="sglang",
    title="SGLang",
    evidence="the sources of SGLang 0.5.23 (PyPI `sglang`)",
    unverified=True,
    read=read,
    metrics_paths=("/metrics",),
    sources={
        **NAMES,
        **HISTOGRAMS,
        "queue_depth": (" + ".join(_QUEUES),),
        "kv_capacity_tokens": (
            *_CAPACITY,
            "sglang:num_pages x sglang:page_size",
            "sglang:cache_config_info{num_pages, page_size}",
        ),
        "block_size_tokens": (*_PAGE_SIZE, "sglang:cache_config_info{page_size}"),
    },
    # Of the others an observation is a token, not a request.
    histograms={"ttft": HISTOGRAMS["ttft"], "tpot": HISTOGRAMS["tpot"][:1]},
    histogram_labels={"ttft": _is_streamed},
    usage_rules={
        Endpoint.CHAT: _LAST_CHUNK,
        Endpoint.COMPLETIONS: _LAST_CHUNK,
        Endpoint.EMBEDDINGS: UsageRule(where="the body"),
        Endpoint.RESPONSES: UsageRule(where="`response.completed`"),
        Endpoint.MESSAGES: UsageRule(
            where="input from `message_start` (with `cache_read_input_tokens`), output from "
            "`message_delta`"
        ),
    },
    # It takes a second, and a token of an idle engine. `/ready` does not, but only newer ones
    # have it.
    health_path="/health",
    sends_at_once=True,
)
