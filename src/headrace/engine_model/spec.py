"""What an engine is, in the numbers its behaviour follows from."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.core.latency import LatencyProfile


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One replica: its step times, its KV cache and its scheduler's limits.

    Raises:
        ValueError: a number makes no engine, or steps of decoding would take no time.
    """

    latency: LatencyProfile
    """Seconds of a step, linear in the work of the step."""
    kv_capacity_tokens: int
    """Tokens the KV cache holds; a remainder less than a KV block is not used."""
    kv_block_tokens: int = 16
    """Tokens in a KV block, the unit of allocation (vLLM's `--block-size`)."""
    max_sequences: int = 256
    """Sequences that run at once (vLLM's `--max-num-seqs`)."""
    max_batched_tokens: int = 8192
    """Token budget of a step: decoding first, then prefill (vLLM's `--max-num-batched-tokens`)."""
    gpus: int = 1
    """GPUs of the replica."""
    max_context_tokens: int | None = None
    """Prompt and answer together, where less than the KV cache holds (vLLM's `--max-model-len`)."""

    def holds(self, tokens: int) -> bool:
        """Whether a prompt and its answer, of so many tokens together, can ever be served."""
        if self.max_context_tokens is not None and tokens > self.max_context_tokens:
            return False
        block_tokens = self.kv_block_tokens
        return -(-tokens // block_tokens) <= self.kv_capacity_tokens // block_tokens

    @property
    def room(self) -> str:
        """What `holds` goes by, in words."""
        room = f"KV cache of {self.kv_capacity_tokens:,} tokens"
        if self.max_context_tokens is not None:
            room += f" and context of {self.max_context_tokens:,}"
        return room

    def __post_init__(self) -> None:
        for name in ("kv_block_tokens", "max_sequences", "max_batched_tokens", "gpus"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"engine {self.latency.name!r}: {name} is {value}; give 1 or more")
        if self.kv_capacity_tokens < self.kv_block_tokens:
            raise ValueError(
                f"engine {self.latency.name!r}: kv_capacity_tokens is {self.kv_capacity_tokens}; "
                f"give at least one block of {self.kv_block_tokens}"
            )
        if self.max_context_tokens is not None and self.max_context_tokens < 2:
            raise ValueError(
                f"engine {self.latency.name!r}: max_context_tokens is {self.max_context_tokens}; "
                "give room for a token of prompt and one of answer"
            )
        if self.max_batched_tokens < self.max_sequences:
            raise ValueError(
                f"engine {self.latency.name!r}: max_batched_tokens is {self.max_batched_tokens}, "
                f"less than max_sequences {self.max_sequences}; a step must hold one token of each"
            )
        if self.latency.per_step_s + self.latency.per_sequence_s <= 0:
            raise ValueError(
                f"engine {self.latency.name!r}: per_step_s and per_sequence_s are both 0, so "
                "decoding would take no time; give one of them"
            )
