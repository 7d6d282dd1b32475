"""What an engine says of itself, in one vocabulary. `None` means the engine does not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

Answers = Mapping[str, tuple[int, bytes]]
"""What a scraper brought back: `{path: (HTTP status, body)}`. A path may be missing."""


class Durations(NamedTuple):
    """Durations an engine has observed since its start: what a histogram's `_sum` and `_count` say.

    The difference of two readings gives the mean of the time between them.
    """

    total_s: float
    observations: float


@dataclass(frozen=True, slots=True)
class EngineReading:
    """One look at an engine. Data-parallel ranks behind one address are already one sum.

    Counters (`*_total`) grow from the engine's start; they restart at 0 with it.
    """

    queue_depth: float | None = None
    """Requests waiting in the engine for a place in its batch."""
    waiting_for_room: float | None = None
    """Those of them that wait for a place in the batch or room in the KV cache, and nothing else.
    0 unless such wait at each rank: then its batch or its cache is full."""
    running: float | None = None
    """Requests in the engine's batch."""
    kv_usage_ratio: float | None = None
    """KV cache in use, 0 to 1; where ranks differ, their mean weighted by capacity."""
    kv_capacity_tokens: float | None = None
    """Tokens the KV cache holds."""
    kv_used_tokens: float | None = None
    """Tokens in the KV cache that running requests need; what can be reclaimed is not counted."""
    max_sequences: float | None = None
    """Sequences the engine can run side by side."""
    block_size_tokens: float | None = None
    """Tokens per KV block."""
    input_tokens_total: float | None = None
    """Prompt tokens served, cached ones included."""
    output_tokens_total: float | None = None
    """Tokens generated."""
    cached_input_tokens_total: float | None = None
    """Prompt tokens that came from a cache, a part of `input_tokens_total`."""
    prefix_queries_tokens_total: float | None = None
    """Tokens looked up in the prefix cache."""
    prefix_hits_tokens_total: float | None = None
    """Tokens found there."""
    preemptions_total: float | None = None
    """Running requests thrown back into the queue for want of KV space."""
    ttft: Durations | None = None
    """Time to first token as the engine measures it: without the way to the client."""
    tpot: Durations | None = None
    """Time per output token, one observation per request; per token where only that is told."""
    skipped_lines: int = 0
    """Lines about wanted metrics that could not be read; more than 0 means a dialect to look at."""

    @property
    def prefix_tokens_total(self) -> tuple[float, float] | None:
        """Tokens looked for in the prefix cache and tokens found there; of an engine that does not
        count what it looks up, its prompts and what of them was cached. None where it tells less.
        """
        looked_up, found = self.prefix_queries_tokens_total, self.prefix_hits_tokens_total
        if looked_up is None or found is None:
            looked_up, found = self.input_tokens_total, self.cached_input_tokens_total
        return None if looked_up is None or found is None else (looked_up, found)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One entry of an engine's `/v1/models`."""

    id: str
    parent: str | None = None
    """The base model, for a LoRA adapter; else `None`."""
    max_context_tokens: int | None = None
    """Prompt and answer together, for one request."""
    aliases: tuple[str, ...] = ()
    """Other names the engine answers to, `id` not among them."""
    owned_by: str | None = None


class Refusal(StrEnum):
    """Why an engine answered with an error, as far as routing is concerned."""

    CLIENT = "client"
    """The request is at fault: pass the answer through, every replica would say the same."""
    LOADING = "loading"
    """The replica is not ready yet: send nothing until its health check passes."""
    BUSY = "busy"
    """The replica is full, not ill: another may take it."""
    ABSENT = "absent"
    """The replica does not hold this model or adapter; another may."""
    BROKEN = "broken"
    """The replica failed: another may succeed, and this one is to be suspected."""

    @property
    def retryable(self) -> bool:
        """Whether another replica may do better, as long as the client has seen no byte."""
        return self is not Refusal.CLIENT
