"""A measured engine: the coefficients, how sure they are, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from headrace.core.latency import LatencyProfile
from headrace.engine_model.spec import EngineSpec


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a coefficient lies with 95 %, in its own seconds."""

    low_s: float
    """Its lower end."""
    high_s: float
    """Its upper end."""
    note: str = ""
    """What is to be said of it, as of a term that was not told from 0."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far the experiments are from the fit, as shares of what was measured."""

    experiments: int
    """How many different ones there were."""
    median_error: float
    """Half of them are nearer."""
    p90_error: float
    """Nine of ten are nearer."""
    worst_error: float
    """The furthest."""
    worst: str = ""
    """Which one that was."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What was measured, when, and with what."""

    date: str
    """UTC, as 2026-11-25T22:40:00Z."""
    model: str
    """The id that the engine serves."""
    engine: str
    """The dialect it speaks."""
    engine_version: str = ""
    """As the engine tells it."""
    machine: str = ""
    """GPU or CPU, where it is known."""
    headrace_version: str = ""
    """Who measured."""
    rounds: int = 0
    """How often each experiment was made, at least."""
    seconds: float = 0.0
    """How long it took."""
    warnings: tuple[str, ...] = ()
    """What the intervals do not account for: others that used the engine, times that it stood
    still, preemptions."""


@dataclass(frozen=True, slots=True)
class MeasuredProfile:
    """The content of a profile file. Only the name and the coefficients must be there.

    Raises:
        ValueError: the coefficients make no latency model (see `LatencyProfile`).
    """

    name: str
    """Of the profile; decisions show it."""
    per_step_s: float
    """Each step of the engine."""
    per_prefill_token_s: float
    """Each prompt token that is not cached."""
    per_attended_token_s: float = 0.0
    """Each pair of an uncached prompt token and a token it attends to."""
    per_sequence_s: float = 0.0
    """Each decoding sequence in a step."""
    per_kv_token_s: float = 0.0
    """Each token of KV cache that a step reads."""
    source: str = ""
    """Where the coefficients come from, in words; the file if nothing is said."""
    request_overhead_s: float = 0.0
    """What a request takes besides steps: the way there and back, parsing, tokenising."""
    prefill_step_tokens: int | None = None
    """Prompt tokens that one step takes at most; a longer prompt takes several."""
    max_context_tokens: int | None = None
    """Prompt and answer together."""
    kv_capacity_tokens: int | None = None
    """Tokens that the KV cache holds."""
    kv_block_tokens: int | None = None
    """Tokens in one of its blocks."""
    max_sequences: int | None = None
    """Sequences that run at once."""
    memory_bytes_per_s: float = 0.0
    """Peak memory bandwidth of all its GPUs; 0: not known."""
    weight_bytes_per_step: float = 0.0
    """Bytes of weights that a step reads, over all of them; 0: not known."""
    kv_bytes_per_token: float = 0.0
    """Bytes of KV cache behind one token, over all of them; 0: not known."""
    intervals: dict[str, Interval] = field(default_factory=dict[str, Interval])
    """By coefficient."""
    residuals: Residuals | None = None
    """How well the model describes the engine."""
    measured: Provenance | None = None
    """What was measured."""

    def __post_init__(self) -> None:
        _ = self.latency

    @property
    def latency(self) -> LatencyProfile:
        """What router and admission use."""
        return LatencyProfile(
            self.name,
            self.source or f"profile {self.name}",
            self.per_step_s,
            self.per_prefill_token_s,
            self.per_attended_token_s,
            self.per_sequence_s,
            self.per_kv_token_s,
            self.memory_bytes_per_s,
            self.weight_bytes_per_step,
            self.kv_bytes_per_token,
        )

    @classmethod
    def of(cls, spec: EngineSpec) -> MeasuredProfile:
        """An engine that was not measured here, as a shipped profile has it."""
        latency = spec.latency
        return cls(
            latency.name,
            latency.per_step_s,
            latency.per_prefill_token_s,
            latency.per_attended_token_s,
            latency.per_sequence_s,
            latency.per_kv_token_s,
            source=latency.source,
            prefill_step_tokens=spec.max_batched_tokens,
            kv_capacity_tokens=spec.kv_capacity_tokens,
            kv_block_tokens=spec.kv_block_tokens,
            max_sequences=spec.max_sequences,
            max_context_tokens=spec.max_context_tokens,
            memory_bytes_per_s=latency.memory_bytes_per_s,
            weight_bytes_per_step=latency.weight_bytes_per_step,
            kv_bytes_per_token=latency.kv_bytes_per_token,
        )

    def ttft_s(self, uncached_tokens: float, cached_tokens: float = 0.0) -> float:
        """Seconds to the first token of a request that is alone, as its client sees them."""
        more_steps = prefill_steps(uncached_tokens, self.prefill_step_tokens) - 1
        alone_s = self.latency.prefill_s(uncached_tokens, cached_tokens)
        return self.request_overhead_s + alone_s + self.per_step_s * more_steps

    def engine(self, kv_capacity_tokens: int | None = None) -> EngineSpec:
        """The engine to model; `kv_capacity_tokens` overrules what was measured.

        Raises:
            ValueError: nobody knows how large its KV cache is, or the numbers make no engine.
        """
        capacity = kv_capacity_tokens or self.kv_capacity_tokens
        if capacity is None:
            raise ValueError(
                f"profile {self.name!r} does not tell kv_capacity_tokens: the engine did not say; "
                "add it to the file or give --kv-tokens"
            )
        known: dict[str, int] = {}
        if self.kv_block_tokens is not None:
            known["kv_block_tokens"] = self.kv_block_tokens
        if self.max_sequences is not None:
            known["max_sequences"] = self.max_sequences
        spec = EngineSpec(
            self.latency, capacity, max_context_tokens=self.max_context_tokens, **known
        )
        # Without a limit that shows, the longest prompt goes in one step.
        budget = self.prefill_step_tokens or max(
            spec.max_batched_tokens, self.max_context_tokens or 0
        )
        return replace(spec, max_batched_tokens=max(budget, spec.max_sequences))


def prefill_steps(uncached_tokens: float, step_tokens: int | None) -> int:
    """Steps that a prompt takes alone."""
    if step_tokens is None:
        return 1
    return max(1, -int(-uncached_tokens // step_tokens))
