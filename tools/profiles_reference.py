"""Writes docs/reference/profiles.md from the profiles: `python -m tools.profiles_reference`."""

from pathlib import Path

from headrace.core.latency import LatencyProfile
from headrace.engine_model.gpus import GPUS, Gpu
from headrace.engine_model.models import MODELS, ModelShape
from headrace.engine_model.profiles import profile, profile_names

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "profiles.md"
PROMPT_TOKENS, CONTEXT_TOKENS, BATCH = 8192, 4096, 32
EXAMPLE = "h100-llama-3.1-8b"

_HEAD = """\
# Profiles of engines

What a GPU does with a model, for `headrace simulate --profile` and `headrace engine --profile`.
This page is made from the code: `python -m tools.profiles_reference`.

A name is a GPU, a model and, of several GPUs, how many: `h100-llama-3.3-70b-tp4`. Those below are
the pairs of each GPU and model with the GPUs that the model is usually served on, or as many as
it takes to fit. Any other number up to 8 that it fits on can be asked for by its name:
`h100-llama-3.1-8b-tp2`.

None of these is measured; one that is comes from [`headrace calibrate`](../how-to/calibrate.md) and
is [a file](latency-profile.md). Each is derived from published figures of the GPU and the model's
shape, by the formulas in `src/headrace/engine_model/derivation.py`, with a few shares that are
estimates: they stand below beside each GPU. What the model leaves out: [engines without a
GPU](../how-to/engine-without-gpu.md).

## Coefficients

    step = per step + per token * tokens prefilled + per pair * pairs attended in prefill
         + per sequence * sequences decoding + per KV token * tokens of their KV cache

*Weights* are those that a step reads (of a mixture, the experts that 16 sequences touch), *KV* the
cache behind a token, *peak* the memory bandwidth by the data sheet, each over all GPUs: by these
and by the steps that streams show the scaler reckons how busy memory is where no DCGM tells it
([scaling](../explanation/scaling.md)).

| profile | per step, ms | per token, µs | per pair, ns | per sequence, µs | per KV token, ns |\
 weights, GB | KV, kB/token | peak, TB/s |
|---|---|---|---|---|---|---|---|---|
"""

_LIMITS = f"""
## What follows from them

*Prefill* is a prompt of {PROMPT_TOKENS:,} tokens alone on the replica; a *token* is one step of
sequences that have {CONTEXT_TOKENS:,} tokens of context each. KV blocks have 16 tokens.

| profile | KV cache, tokens | step at most, tokens | sequences | prefill, ms |\
 prefill, tokens/s | token alone, ms | among {BATCH}, ms |
|---|---|---|---|---|---|---|---|
"""

_GPU_HEAD = """
## GPUs

Peaks are dense BF16, memory is what `nvidia-smi` reports. *Got* are the shares of the peaks that
matrix products, attention and reading weights get: estimates.

| GPU | title | TFLOP/s | TB/s | MiB | link | got | source |
|---|---|---|---|---|---|---|---|
"""

_MODEL_HEAD = """
## Models

BF16, decoder only, grouped-query attention.

| model | title | parameters | layers | KV heads | KV bytes per token | experts | source |
|---|---|---|---|---|---|---|---|
"""

_POOL_HEAD = """
## As the prior of a pool

A gateway learns the profile of a pool from its first 50 streams. To begin with one of these, give
the pool its coefficients; streams correct them from then on.

```yaml
"""


def render_page() -> str:
    """The whole page."""
    names = profile_names()
    return "".join(
        [
            _HEAD,
            *map(_coefficients, names),
            _LIMITS,
            *map(_limits, names),
            _GPU_HEAD,
            *map(_gpu, GPUS.values()),
            _MODEL_HEAD,
            *map(_model, MODELS.values()),
            _POOL_HEAD,
            as_pool(profile(EXAMPLE).latency),
            "```\n",
        ]
    )


def as_pool(latency: LatencyProfile) -> str:
    """A pool of `headrace.yaml` that begins with this profile."""
    return (
        "pools:\n"
        "  - name: llama-8b\n"
        "    model: meta-llama/Llama-3.1-8B-Instruct\n"
        "    engine: vllm\n"
        "    replicas: [http://10.0.0.11:8000, http://10.0.0.12:8000]\n"
        "    profile:\n"
        f"      name: {latency.name}\n"
        f"      source: {latency.source}\n"
        f"      per_step_s: {latency.per_step_s:.3e}\n"
        f"      per_prefill_token_s: {latency.per_prefill_token_s:.3e}\n"
        f"      per_attended_token_s: {latency.per_attended_token_s:.3e}\n"
        f"      per_sequence_s: {latency.per_sequence_s:.3e}\n"
        f"      per_kv_token_s: {latency.per_kv_token_s:.3e}\n"
        f"      memory_bytes_per_s: {latency.memory_bytes_per_s:.3e}\n"
        f"      weight_bytes_per_step: {latency.weight_bytes_per_step:.4e}\n"
        f"      kv_bytes_per_token: {latency.kv_bytes_per_token:.0f}\n"
    )


def _coefficients(name: str) -> str:
    latency = profile(name).latency
    return _row(
        f"`{name}`",
        f"{latency.per_step_s * 1e3:.2f}",
        f"{latency.per_prefill_token_s * 1e6:.2f}",
        f"{latency.per_attended_token_s * 1e9:.3f}",
        f"{latency.per_sequence_s * 1e6:.1f}",
        f"{latency.per_kv_token_s * 1e9:.1f}",
        f"{latency.weight_bytes_per_step / 1e9:.1f}",
        f"{latency.kv_bytes_per_token / 1e3:.1f}",
        f"{latency.memory_bytes_per_s / 1e12:.2f}",
    )


def _limits(name: str) -> str:
    spec = profile(name)
    prefill_s = spec.latency.prefill_s(PROMPT_TOKENS)
    return _row(
        f"`{name}`",
        f"{spec.kv_capacity_tokens:,}",
        f"{spec.max_batched_tokens:,}",
        str(spec.max_sequences),
        f"{prefill_s * 1e3:,.0f}",
        f"{PROMPT_TOKENS / prefill_s:,.0f}",
        f"{spec.latency.step_s(1, CONTEXT_TOKENS) * 1e3:.1f}",
        f"{spec.latency.step_s(BATCH, BATCH * CONTEXT_TOKENS) * 1e3:.1f}",
    )


def _gpu(gpu: Gpu) -> str:
    shares = (gpu.matmul_share, gpu.attention_share, gpu.memory_share)
    return _row(
        f"`{gpu.name}`",
        gpu.title,
        f"{gpu.flops / 1e12:.0f}",
        f"{gpu.memory_bandwidth / 1e12:.2f}",
        f"{gpu.memory_mib:,}",
        gpu.link,
        ", ".join(f"{share:.0%}" for share in shares),
        gpu.source,
    )


def _model(model: ModelShape) -> str:
    experts = "" if model.experts == 1 else f"{model.experts_per_token} of {model.experts}"
    return _row(
        f"`{model.name}`",
        model.title,
        f"{model.parameters / 1e9:.2f}B",
        str(model.layers),
        str(model.kv_heads),
        f"{model.kv_bytes_per_token(1):,}",
        experts,
        model.source,
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
