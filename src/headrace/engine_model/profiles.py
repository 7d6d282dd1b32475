"""Profiles by name: "h100-llama-3.1-8b", "l40s-qwen3-32b-tp2".

A name is a GPU (`gpus`), a model (`models`) and, of several GPUs, how many ("-tp4"). Shipped are
all pairs of a GPU and a model, each with the GPUs that the model is usually served on, or as many
more as it takes to fit: 70B does not fit on four L4, so that profile is `l4-llama-3.3-70b-tp8`.
Any other number of GPUs can be asked for by its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache

from headrace.core.latency import LatencyProfile
from headrace.core.quantities import percent
from headrace.engine_model.derivation import derive, profile_name, weight_bytes_read
from headrace.engine_model.gpus import GPUS, Gpu
from headrace.engine_model.models import BYTES_PER_VALUE, MODELS, ModelShape
from headrace.engine_model.spec import EngineSpec

USUAL_GPUS = {"llama-3.1-8b": 1, "llama-3.3-70b": 4, "qwen3-32b": 2, "qwen3-30b-a3b": 1}
"""GPUs that a model is served on, if it fits."""
MOST_GPUS = 8
"""GPUs of one host."""


@cache
def profile_names() -> tuple[str, ...]:
    """The names of the shipped profiles, by GPU, then by model."""
    return tuple(_shipped(gpu, model) for gpu in GPUS.values() for model in MODELS.values())


@cache
def profile(name: str) -> EngineSpec:
    """The engine of this name.

    Raises:
        ValueError: there is no such profile, or the model does not fit on so many of that GPU.
    """
    return derive(*_parts(name))


def weight_bytes(name: str) -> float:
    """Bytes of the weights that a replica of this profile loads, over all its GPUs.

    Raises:
        ValueError: there is no such profile.
    """
    return _parts(name)[1].parameters * BYTES_PER_VALUE


def describe(name: str) -> str:
    """A profile in words: its parts, where they come from, its coefficients and what they mean.

    Raises:
        ValueError: as `profile`.
    """
    gpu, model, gpus = _parts(name)
    spec = profile(name)
    lines = [
        f"{name}: {model.title} in BF16 on {gpus} × {gpu.title}",
        *_sources(gpu, model),
        *_coefficients(spec.latency),
        f"  KV cache {spec.kv_capacity_tokens:,} tokens in blocks of {spec.kv_block_tokens}",
        f"  a step   at most {spec.max_batched_tokens} tokens, {spec.max_sequences} sequences",
        *_examples(spec.latency),
    ]
    return "\n".join(lines)


def _sources(gpu: Gpu, model: ModelShape) -> Iterator[str]:
    peaks = f"{gpu.flops / 1e12:.0f} TFLOP/s dense BF16, {gpu.memory_bandwidth / 1e12:.2f} TB/s"
    yield f"  GPU      {peaks}, {gpu.memory_mib} MiB, {gpu.link}"
    yield f"           {gpu.source}"
    products, attention = percent(gpu.matmul_share), percent(gpu.attention_share)
    shares = f"matrix products {products}, attention {attention}"
    yield f"           got of the peaks: {shares}, reading weights {percent(gpu.memory_share)}"
    read_gb = weight_bytes_read(model) / 1e9
    yield f"  model    {model.parameters / 1e9:.2f}B parameters; a step reads {read_gb:.1f} GB"
    yield f"           {model.source}"


def _coefficients(latency: LatencyProfile) -> Iterator[str]:
    yield f"  seconds  {latency.per_step_s * 1e3:.2f} ms per step"
    yield f"           {latency.per_prefill_token_s * 1e6:.2f} µs per token prefilled"
    yield f"           {latency.per_attended_token_s * 1e9:.4f} ns per pair attended in prefill"
    yield f"           {latency.per_sequence_s * 1e6:.2f} µs per decoding sequence and step"
    yield f"           {latency.per_kv_token_s * 1e9:.2f} ns per KV token read by these"


def _examples(latency: LatencyProfile) -> Iterator[str]:
    prompt, context, batch = 8192, 4096, 32
    prefill_s = latency.prefill_s(prompt)
    rate = f"{prompt / prefill_s:,.0f} tokens/s"
    yield f"  so       a prompt of {prompt} tokens alone takes {prefill_s * 1e3:.0f} ms ({rate})"
    alone_ms = latency.step_s(1, context) * 1e3
    among_ms = latency.step_s(batch, batch * context) * 1e3
    tokens = f"{alone_ms:.1f} ms alone, {among_ms:.1f} ms among {batch}"
    yield f"           a token behind {context} others takes {tokens} such"


def _shipped(gpu: Gpu, model: ModelShape) -> str:
    gpus = USUAL_GPUS[model.name]
    while gpus <= MOST_GPUS:
        try:
            derive(gpu, model, gpus)
        except ValueError:
            gpus *= 2
        else:
            return profile_name(gpu, model, gpus)
    raise AssertionError(f"{model.title} fits on no host of {gpu.title}")


def _parts(name: str) -> tuple[Gpu, ModelShape, int]:
    plain, gpus = name, 1
    if split := re.fullmatch(r"(.+)-tp([1-9]\d*)", name):
        plain, gpus = split[1], int(split[2])
    for gpu in GPUS.values():
        model = MODELS.get(plain.removeprefix(gpu.name + "-"))
        if model is not None and plain.startswith(gpu.name + "-"):
            if gpus > MOST_GPUS:
                raise ValueError(f"profile {name!r}: a replica has up to {MOST_GPUS} GPUs")
            return gpu, model, gpus
    known = profile_names()
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"no profile {name!r}; {hint}known are {', '.join(known)}")
