"""From a GPU's and a model's published figures to an `EngineSpec`.

Per replica of n GPUs (tensor parallel), with the shares of `gpus`:

    compute_s        = 2 * parameters a token passes / (n * FLOP/s * matmul_share)
    exchange_s       = all-reduced bytes per token * 2 (n - 1) / n / (link bandwidth * link_share)
    per_prefill_token= compute_s + exchange_s
    per_attended     = FLOPs per pair / (n * FLOP/s * attention_share)
    per_step         = weight bytes read / (n * bandwidth * memory_share) + HOST_STEP_S
                     + 2 * layers * link latency                                         (n > 1)
    per_sequence     = per_prefill_token + output layer's FLOPs as above + HOST_SEQUENCE_S
    per_kv_token     = KV bytes per token and GPU / (bandwidth * KV_SHARE)
    KV capacity      = (memory * MEMORY_UTILISATION - weights - activations - RUNTIME) / KV bytes

A linear model adds what a GPU partly overlaps: reading weights and computing on many tokens. Small
batches are bound by the one and large by the other, so the sum is right at both ends and too high
by at most the smaller term between them, where the two are equal.

In a mixture of experts a step reads the experts that its tokens touch: of E experts with k per
token, E * (1 - (1 - k/E)**batch). That is not linear. `EXPERTS_BATCH` tokens are assumed: TPOT is
too long for an engine that decodes fewer and too short for one that decodes more (128 experts with
8 per token: 82 are charged; 1 sequence touches 8, 64 touch 126).
"""

from __future__ import annotations

from headrace.core.latency import LatencyProfile
from headrace.engine_model.gpus import Gpu
from headrace.engine_model.models import BYTES_PER_VALUE, ModelShape
from headrace.engine_model.spec import EngineSpec

MEMORY_UTILISATION = 0.9
"""vLLM's long-standing default of `--gpu-memory-utilization`."""
RUNTIME_BYTES = 2.0 * 2**30
"""CUDA context, NCCL buffers and CUDA graphs on each GPU: an estimate between 1 and 3 GiB."""
KV_SHARE = 0.7
"""Of the memory bandwidth, what paged attention gets while decoding, since it gathers small blocks:
an estimate."""
HOST_STEP_S = 1.0e-3
"""Scheduling, launching and sampling that the GPU waits for in each step: an estimate for vLLM V1,
of which a token of a small model alone shows little more."""
HOST_SEQUENCE_S = 10e-6
"""The same per decoding sequence (sampling, detokenising, streaming): an estimate."""
ALL_REDUCES_PER_LAYER = 2
"""One behind attention, one behind the MLP (Megatron-LM's tensor parallelism)."""
EXPERT_MATMUL_SHARE = 0.5
"""Grouped products of many small experts get half of what dense ones of the same GPU get: an
estimate."""
EXPERTS_BATCH = 16
"""Decoding sequences assumed for the experts that a step reads."""
MAX_SEQUENCES = 256
"""vLLM's `--max-num-seqs` on most GPUs; from 70 GiB of memory on, except on A100, its API server
takes 1024 (`EngineArgs`, get_batch_defaults)."""
FEWEST_KV_TOKENS = 8192
"""Room for less than this is no engine to serve with."""


def derive(gpu: Gpu, model: ModelShape, gpus: int) -> EngineSpec:
    """The engine that `gpus` of this GPU make for this model, BF16, tensor parallel.

    Raises:
        ValueError: the heads cannot be split so, or weights and a useful KV cache do not fit.
    """
    name = profile_name(gpu, model, gpus)
    if model.heads % gpus or (model.kv_heads % gpus and gpus % model.kv_heads):
        raise ValueError(
            f"profile {name!r}: {model.heads} heads and {model.kv_heads} KV heads cannot be split "
            f"over {gpus} GPUs; give a power of two"
        )
    return EngineSpec(
        latency=_latency(name, gpu, model, gpus),
        kv_capacity_tokens=_kv_capacity_tokens(name, gpu, model, gpus),
        max_sequences=MAX_SEQUENCES,
        max_batched_tokens=gpu.max_batched_tokens,
        gpus=gpus,
    )


def profile_name(gpu: Gpu, model: ModelShape, gpus: int) -> str:
    """The name of a profile: "h100-llama-3.3-70b-tp4"; a single GPU is not said."""
    return f"{gpu.name}-{model.name}" + (f"-tp{gpus}" if gpus > 1 else "")


def weight_bytes_read(model: ModelShape) -> float:
    """Weights that one step reads, without the input embedding, of which it looks up rows."""
    untouched = (1 - model.experts_per_token / model.experts) ** EXPERTS_BATCH
    experts = model.experts * (1 - untouched)
    return BYTES_PER_VALUE * (
        model.attention_parameters + experts * model.expert_parameters + model.embedding_parameters
    )


def _latency(name: str, gpu: Gpu, model: ModelShape, gpus: int) -> LatencyProfile:
    share = gpu.matmul_share * (EXPERT_MATMUL_SHARE if model.experts > 1 else 1.0)
    matmul_flops = gpus * gpu.flops * share
    per_token_s = 2 * model.passed_parameters / matmul_flops
    per_step_s = HOST_STEP_S + weight_bytes_read(model) / (
        gpus * gpu.memory_bandwidth * gpu.memory_share
    )
    if gpus > 1:
        all_reduces = ALL_REDUCES_PER_LAYER * model.layers
        exchanged = all_reduces * model.hidden * BYTES_PER_VALUE * 2 * (gpus - 1) / gpus
        per_token_s += exchanged / (gpu.link_bandwidth * gpu.link_share)
        per_step_s += all_reduces * gpu.link_latency_s
    output_s = 2 * model.embedding_parameters / matmul_flops
    kv_bytes = model.kv_bytes_per_token(gpus)
    return LatencyProfile(
        name=name,
        source=f"profile {name}",
        per_step_s=per_step_s,
        per_prefill_token_s=per_token_s,
        per_attended_token_s=model.flops_per_pair / (gpus * gpu.flops * gpu.attention_share),
        per_sequence_s=per_token_s + output_s + HOST_SEQUENCE_S,
        per_kv_token_s=kv_bytes / (gpu.memory_bandwidth * KV_SHARE),
        memory_bytes_per_s=gpus * gpu.memory_bandwidth,
        weight_bytes_per_step=weight_bytes_read(model),
        kv_bytes_per_token=float(gpus * kv_bytes),
    )


def _kv_capacity_tokens(name: str, gpu: Gpu, model: ModelShape, gpus: int) -> int:
    usable = gpu.memory_mib * 2**20 * MEMORY_UTILISATION
    weights = model.parameters * BYTES_PER_VALUE / gpus
    rest = usable - weights - activation_bytes(model, gpu.max_batched_tokens, gpus) - RUNTIME_BYTES
    tokens = int(rest / model.kv_bytes_per_token(gpus))
    if tokens < FEWEST_KV_TOKENS:
        raise ValueError(
            f"profile {name!r} does not fit: {model.title} in BF16 has {weights / 1e9:.1f} GB of "
            f"weights on each of {gpus} {gpu.title}, of which {usable / 1e9:.1f} GB can be used, "
            f"and a KV cache needs {FEWEST_KV_TOKENS} tokens; take more GPUs"
        )
    return tokens // 16 * 16


def activation_bytes(model: ModelShape, batched_tokens: int, gpus: int) -> float:
    """The peak of a full step: the MLP's gate, up and product, four hidden states, and logits.

    Logits are kept in FP32, twice, for `MAX_SEQUENCES` sequences.
    """
    width = 3 * model.intermediate * model.experts_per_token / gpus + 4 * model.hidden
    logits = MAX_SEQUENCES * model.vocabulary * 4 * 2
    return batched_tokens * width * BYTES_PER_VALUE + logits
