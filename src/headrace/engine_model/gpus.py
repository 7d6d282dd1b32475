"""GPUs: what their makers publish, and what of it serving gets.

Peaks are dense BF16 on tensor cores (data sheets print twice that "with sparsity"), bandwidths are
those of the memory and, one way, of the link between GPUs of a host. Memory is what `nvidia-smi`
reports: on GDDR6, error correction takes a sixteenth of the memory
(github.com/modal-labs/modal-client/pull/2797 lists H100 81,559 MiB, A100 80GB 81,920 MiB, L40S
46,068 MiB, L4 23,034 MiB; an H200 says 143,771 MiB).

The shares are estimates, made once here so that every profile rests on the same few:

- `matmul_share` of the peak that a step of thousands of tokens gets in its matrix products, norms
  and copies included. 0.62 on Hopper makes Qwen3-32B on two H100 prefill at what llm-d publishes
  for it (15,928 tokens a second). A100 has less peak per byte of bandwidth and gets nearer to it;
  L40S and L4 are held back by their power limits (350 W and 72 W), L4 most.
- `attention_share` of the peak that FlashAttention gets (its papers: up to 0.75 for FA3 on Hopper
  at 16k tokens, 0.7 for FA2 on A100, forward; paged and in chunks it is less).
- `memory_share` of the bandwidth that reading weights gets. 0.75 on Hopper gives about 7 ms per
  token to an 8B model alone on an H100, which is what serving it in BF16 is known for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU model. FLOP/s are dense BF16; bandwidths are in bytes per second."""

    name: str
    title: str
    flops: float
    memory_bandwidth: float
    memory_mib: int
    link: str
    link_bandwidth: float
    """One way, between two GPUs of a host."""
    link_share: float
    """Of `link_bandwidth`, what an all-reduce of megabytes gets."""
    link_latency_s: float
    """What an all-reduce of a few kilobytes takes."""
    matmul_share: float
    attention_share: float
    memory_share: float
    max_batched_tokens: int
    """vLLM's default budget of its API server: 8192 from 70 GiB of memory on, except on A100; else
    2048 (`EngineArgs`, default_max_num_batched_tokens)."""
    source: str


NVLINK_SHARE = 0.7
"""NCCL's bus bandwidth over the link's, for messages of tens of MB: an estimate."""
NVLINK_LATENCY_S = 10e-6
"""A custom all-reduce in a CUDA graph, as vLLM has it: an estimate."""
PCIE_SHARE = 0.5
"""These cards have no NVLink, and most hosts no peer-to-peer: data goes through host memory."""
PCIE_LATENCY_S = 30e-6
"""NCCL through host memory: an estimate."""

_GPUS = (
    Gpu(
        name="h100",
        title="NVIDIA H100 SXM 80GB",
        flops=989.4e12,
        memory_bandwidth=3.35e12,
        memory_mib=81_559,
        link="NVLink 4",
        link_bandwidth=450e9,
        link_share=NVLINK_SHARE,
        link_latency_s=NVLINK_LATENCY_S,
        matmul_share=0.62,
        attention_share=0.5,
        memory_share=0.75,
        max_batched_tokens=8192,
        source="NVIDIA H100 data sheet: 1,979 TFLOPS BF16 with sparsity, 3.35 TB/s, NVLink "
        "900 GB/s both ways",
    ),
    Gpu(
        name="h200",
        title="NVIDIA H200 SXM 141GB",
        flops=989.4e12,
        memory_bandwidth=4.8e12,
        memory_mib=143_771,
        link="NVLink 4",
        link_bandwidth=450e9,
        link_share=NVLINK_SHARE,
        link_latency_s=NVLINK_LATENCY_S,
        matmul_share=0.62,
        attention_share=0.5,
        memory_share=0.75,
        max_batched_tokens=8192,
        source="NVIDIA H200 data sheet: 1,979 TFLOPS BF16 with sparsity, 4.8 TB/s, NVLink "
        "900 GB/s both ways",
    ),
    Gpu(
        name="a100-80g",
        title="NVIDIA A100 SXM 80GB",
        flops=312e12,
        memory_bandwidth=2.039e12,
        memory_mib=81_920,
        link="NVLink 3",
        link_bandwidth=300e9,
        link_share=NVLINK_SHARE,
        link_latency_s=NVLINK_LATENCY_S,
        matmul_share=0.68,
        attention_share=0.5,
        memory_share=0.78,
        max_batched_tokens=2048,
        source="NVIDIA A100 data sheet: 312 TFLOPS BF16 dense, 2,039 GB/s, NVLink 600 GB/s both "
        "ways",
    ),
    Gpu(
        name="l40s",
        title="NVIDIA L40S 48GB",
        flops=362.05e12,
        memory_bandwidth=864e9,
        memory_mib=46_068,
        link="PCIe 4 x16",
        link_bandwidth=32e9,
        link_share=PCIE_SHARE,
        link_latency_s=PCIE_LATENCY_S,
        matmul_share=0.5,
        attention_share=0.4,
        memory_share=0.82,
        max_batched_tokens=2048,
        source="NVIDIA L40S data sheet: 362.05 TFLOPS BF16 dense (733 with sparsity), 864 GB/s, "
        "PCIe Gen4 x16 64 GB/s both ways",
    ),
    Gpu(
        name="l4",
        title="NVIDIA L4 24GB",
        flops=121e12,
        memory_bandwidth=300e9,
        memory_mib=23_034,
        link="PCIe 4 x16",
        link_bandwidth=32e9,
        link_share=PCIE_SHARE,
        link_latency_s=PCIE_LATENCY_S,
        matmul_share=0.45,
        attention_share=0.35,
        memory_share=0.82,
        max_batched_tokens=2048,
        source="NVIDIA L4 data sheet: 242 TFLOPS BF16 with sparsity, 300 GB/s, PCIe Gen4 x16 "
        "64 GB/s both ways",
    ),
)

GPUS = {gpu.name: gpu for gpu in _GPUS}
"""By the name that stands in a profile's name."""
