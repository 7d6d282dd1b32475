"""Triton Inference Server with its TensorRT-LLM backend, behind its OpenAI front-end."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.exposition import Exposition, Sample, parse
from headrace.engines.reading import Answers, EngineReading
from headrace.engines.usage import UsageRule

# One metric holds several facts, told apart by a label; the second names are the first ever used.
_REQUESTS = ("nv_trt_llm_request_metrics", "nv_trt_llm_request_statistics")
_BLOCKS = ("nv_trt_llm_kv_cache_block_metrics", "nv_trt_llm_kv_cache_block_statistics")
_WANTED = frozenset((*_REQUESTS, *_BLOCKS))


def read(answers: Answers) -> EngineReading:
    """Read `/metrics`. Each model and version stands under labels of its own: sums are taken."""
    status, body = answers.get("/metrics", (0, b""))
    if status != 200:
        return EngineReading()
    metrics = parse(body, _WANTED)
    used, capacity = _tokens(metrics, "used"), _tokens(metrics, "max")
    ratio = used / capacity if used is not None and capacity and used <= capacity else None
    block_sizes = _by_model(metrics, "tokens_per")
    return EngineReading(
        queue_depth=_requests(metrics, "waiting"),
        running=_requests(metrics, "active"),
        kv_usage_ratio=ratio,
        kv_used_tokens=used,
        kv_capacity_tokens=capacity,
        max_sequences=_requests(metrics, "max"),
        block_size_tokens=next(iter(block_sizes.values()), None),
        skipped_lines=metrics.skipped_lines,
    )


def _requests(metrics: Exposition, request_type: str) -> float | None:
    found = _labelled(metrics, _REQUESTS, "request_type", request_type)
    return sum(sample.value for sample in found) if found else None


def _tokens(metrics: Exposition, block_type: str) -> float | None:
    """Blocks of this type in tokens, over all models that tell their blocks' size."""
    sizes, blocks = _by_model(metrics, "tokens_per"), _by_model(metrics, block_type)
    tokens = [blocks[model] * sizes[model] for model in blocks.keys() & sizes.keys()]
    return sum(tokens) if tokens else None


def _by_model(metrics: Exposition, block_type: str) -> dict[tuple[str, str], float]:
    found = _labelled(metrics, _BLOCKS, "kv_cache_block_type", block_type)
    return {
        (sample.labels.get("model", ""), sample.labels.get("version", "")): sample.value
        for sample in found
    }


def _labelled(metrics: Exposition, names: Sequence[str], label: str, value: str) -> list[Sample]:
    return [sample for sample in metrics.of(names) if sample.labels.get(label) == value]


def _sources(names: Sequence[str], label: str, value: str) -> tuple[str, ...]:
    return tuple(f'{name}{{{label}="{value}"}}' for name in names)


_LAST_CHUNK = UsageRule(
    where="the last chunk, whose `choices` is empty, if the model's outputs hold "
    "`num_input_tokens` and `num_output_tokens`; cached tokens are not told",
    inject_usage=True,
)
_NOT_SERVED = UsageRule(where="Triton's front-end does not serve this")

DIALECT = Dialect(
    name="triton",
    title="Triton, TensorRT-LLM backend",
    evidence="the sources of Triton 2.73 and the TensorRT-LLM backend of July 2026 "
    "(github.com/triton-inference-server)",
    unverified=True,
    read=read,
    metrics_paths=("/metrics",),
    sources={
        "queue_depth": _sources(_REQUESTS, "request_type", "waiting"),
        "running": _sources(_REQUESTS, "request_type", "active"),
        "max_sequences": _sources(_REQUESTS, "request_type", "max"),
        "block_size_tokens": _sources(_BLOCKS, "kv_cache_block_type", "tokens_per"),
        "kv_used_tokens": (f"{_BLOCKS[0]}: used x tokens_per",),
        "kv_capacity_tokens": (f"{_BLOCKS[0]}: max x tokens_per",),
        "kv_usage_ratio": ("kv_used_tokens / kv_capacity_tokens",),
    },
    usage_rules={
        Endpoint.CHAT: _LAST_CHUNK,
        Endpoint.COMPLETIONS: _LAST_CHUNK,
        Endpoint.EMBEDDINGS: UsageRule(where="the body"),
        Endpoint.RESPONSES: _NOT_SERVED,
        Endpoint.MESSAGES: _NOT_SERVED,
    },
    health_path="/health/ready",
    derived=frozenset({"kv_used_tokens", "kv_capacity_tokens", "kv_usage_ratio"}),
)
