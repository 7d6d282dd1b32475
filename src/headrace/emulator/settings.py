"""What an emulated engine claims to be."""

from __future__ import annotations

from dataclasses import dataclass

VLLM_VERSION = "0.32.0"
"""The version whose API and metric names are spoken."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """One emulated engine."""

    model: str = "emulated"
    """The only model it serves."""
    output_tokens: int = 128
    """Length of an answer whose request does not end it sooner with `max_tokens`, or forces
    another length with `ignore_eos`."""
    max_context_tokens: int = 131_072
    """Prompt and answer together; above it 400."""
    block_tokens: int = 16
    """Tokens of one KV block."""
    kv_blocks: int = 27_000
    """Blocks of the KV cache: an 8B model's on one GPU of 80 GB."""

    prompt_tokens_details: bool = False
    """Whether usage says how much of a prompt was cached (`--enable-prompt-tokens-details`)."""
    wake_s: float | None = None
    """How long it takes to wake from sleep; None: it was not started with sleep mode."""

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens that the KV cache holds; one block is a placeholder, as in vLLM."""
        return (self.kv_blocks - 1) * self.block_tokens
