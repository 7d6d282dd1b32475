"""Models: their shapes, and what follows from them.

All are decoder-only transformers with grouped-query attention and gated (SwiGLU) MLPs, weights and
KV cache in BF16:

    attention parameters of a layer = hidden * head_dim * (2 * heads + 2 * kv_heads)
    MLP parameters of an expert     = 3 * hidden * intermediate
    KV bytes per token              = 2 * layers * kv_heads * head_dim * 2
    FLOPs per token                 = 2 per parameter it passes through
    FLOPs per attended pair         = 4 * layers * heads * head_dim  (scores and their sum over V)
"""

from __future__ import annotations

from dataclasses import dataclass

BYTES_PER_VALUE = 2
"""BF16."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model's shape, as in its `config.json`. A dense model is one with a single expert."""

    name: str
    title: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the MLP, of one expert's if there are several."""
    vocabulary: int
    source: str
    experts: int = 1
    experts_per_token: int = 1
    qk_norm: bool = False

    @property
    def attention_parameters(self) -> int:
        """Parameters of attention in all layers, norms and the router of experts with them."""
        projections = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        router = self.hidden * self.experts if self.experts > 1 else 0
        return self.layers * (projections + norms + router) + self.hidden

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert in all layers."""
        return self.layers * 3 * self.hidden * self.intermediate

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding, and as many of the output layer: they are not tied."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return (
            self.attention_parameters
            + self.experts * self.expert_parameters
            + 2 * self.embedding_parameters
        )

    @property
    def passed_parameters(self) -> int:
        """Parameters a token passes through in the layers."""
        return self.attention_parameters + self.experts_per_token * self.expert_parameters

    @property
    def flops_per_pair(self) -> int:
        """FLOPs of one token's attention to one token."""
        return 4 * self.layers * self.heads * self.head_dim

    def kv_bytes_per_token(self, gpus: int) -> int:
        """KV bytes per token on each of `gpus`; a KV head is not split, so it may be on several."""
        heads = -(-self.kv_heads // gpus)
        return 2 * self.layers * heads * self.head_dim * BYTES_PER_VALUE


_MODELS = (
    ModelShape(
        name="llama-3.1-8b",
        title="Llama-3.1-8B-Instruct",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=14336,
        vocabulary=128_256,
        source="config.json of meta-llama/Llama-3.1-8B-Instruct; 8,030,261,248 parameters",
    ),
    ModelShape(
        name="llama-3.3-70b",
        title="Llama-3.3-70B-Instruct",
        layers=80,
        hidden=8192,
        heads=64,
        kv_heads=8,
        head_dim=128,
        intermediate=28672,
        vocabulary=128_256,
        source="config.json of meta-llama/Llama-3.3-70B-Instruct; 70,553,706,496 parameters",
    ),
    ModelShape(
        name="qwen3-32b",
        title="Qwen3-32B",
        layers=64,
        hidden=5120,
        heads=64,
        kv_heads=8,
        head_dim=128,
        intermediate=25600,
        vocabulary=151_936,
        qk_norm=True,
        source="config.json and model card of Qwen/Qwen3-32B; 32.8B parameters, 31.2B without "
        "embeddings",
    ),
    ModelShape(
        name="qwen3-30b-a3b",
        title="Qwen3-30B-A3B",
        layers=48,
        hidden=2048,
        heads=32,
        kv_heads=4,
        head_dim=128,
        intermediate=768,
        vocabulary=151_936,
        experts=128,
        experts_per_token=8,
        qk_norm=True,
        source="config.json and model card of Qwen/Qwen3-30B-A3B; 30.5B parameters, 3.3B active",
    ),
)

MODELS = {model.name: model for model in _MODELS}
"""By the name that stands in a profile's name."""
