"""The nouns: what is asked, what serves it, what was used.

Messages and specifications are frozen. What changes with every event (`Replica`, `Pool`,
`Fleet`) is mutable and slotted, with its sums kept up to date by whoever changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from headrace.core.latency import PoolLatency, ReplicaLatency
from headrace.core.message import message
from headrace.core.pool_demand import PoolDemand
from headrace.core.prompt_length import PromptLength
from headrace.core.specs import Alias, PoolSpec

PROMPT_BLOCK_BYTES: Final = 256
"""Bytes of prompt, in template order, that are one block: about 64 tokens."""
FINE_BLOCKS: Final = 16
"""The first blocks of a prompt, each of which has a hash of its own."""
COARSE_BLOCKS: Final = 4
"""Blocks behind these have one hash together: a third of the time and memory is spent for at most
three blocks of a hit unseen."""


@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """What the blocks of prompts are, and how it is known which replica holds them."""

    tokens: float | None = None
    """Tokens behind each block, where that is exact; None: each is `PROMPT_BLOCK_BYTES` of text."""
    kv_events: bool = False
    """They come and go by `KvChanged` alone, instead of by what was dispatched and ended here."""


class Rng(Protocol):
    """The only randomness the core may use; `random.Random` fits."""

    def random(self) -> float:
        """Return a float in [0, 1)."""
        ...


class Endpoint(StrEnum):
    """The API a request speaks. It decides how usage is obtained and what a token delta is.

    Of this and other enums, what each request is compared with is a constant of the module that
    compares: to read a member off its class takes CPython 3.11 as long as five calls.
    """

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    OTHER = "other"


TEMPLATED = (Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES)
"""Endpoints whose prompts a chat template is applied to; others' go to the model as they are."""


class Outcome(StrEnum):
    """How an attempt ended. The values are label values in metrics."""

    COMPLETED = "completed"
    """The whole answer was relayed."""
    ABORTED = "aborted"
    """The client went away."""
    REFUSED = "refused"
    """The engine answered with an error that is the request's own fault (4xx)."""
    UNAVAILABLE = "unavailable"
    """Nothing reached the client: no connection, an early reset, or a busy engine. Retryable."""
    TIMED_OUT = "timed_out"
    """A phase took longer than its limit. Retryable only if nothing reached the client."""
    CUT = "cut"
    """The gateway ended it: out of time altogether, or stopping. Says nothing about the replica."""
    BROKEN = "broken"
    """The upstream failed after the first byte reached the client."""


@message
class Usage:
    """Tokens of one request as its engine counted them.

    `input_tokens` includes `cached_tokens`, the part served from the prefix cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@message
class Request:
    """What the core knows of a request: sizes and identities, never its bytes.

    `model` is what the client asked for: an alias, a model or an adapter.
    `blocks` are chained hashes of the prompt in template order, equal ones for equal prefixes: one
    for each of the first `FINE_BLOCKS` full blocks, then one for every `COARSE_BLOCKS` of them.
    `prompt_tokens` is exact and given only where the prompt came as token ids;
    else the length is estimated from `text_bytes` as the pool has learned, plus `media_items` times
    the pool's media cost.
    `sequences` is how many answers run side by side: `n` choices, for each of `prompts` in a list.
    `replica` names the one replica that can answer (a stored response lives there), or "".
    `client_id` is the caller's own x-request-id, an attribute only: it need not be unique.
    `caller` tells one client from another, as well as can be: the name of its key, else where it
    comes from (an address, of IPv6 a /64 network); "" where nobody knows.
    `tier` names what is promised, "" for the default; the targets, where given, stand instead of
    the tier's own.
    """

    id: str
    model: str
    endpoint: Endpoint
    streamed: bool
    text_bytes: int = 0
    prompt_tokens: int | None = None
    media_items: int = 0
    blocks: tuple[int, ...] = ()
    max_output_tokens: int | None = None
    replica: str = ""
    tenant: str = ""
    tier: str = ""
    client_id: str = ""
    ttft_target_s: float | None = None
    tpot_target_s: float | None = None
    sequences: int = 1
    caller: str = ""
    prompts: int = 1

    @property
    def choices(self) -> int:
        """Answers to each prompt, which share its KV cache and each attend to it."""
        return self.sequences // self.prompts


class ReplicaState(StrEnum):
    """Whether a replica may be routed to."""

    STARTING = "starting"
    READY = "ready"
    EJECTED = "ejected"
    """Failed repeatedly; probed back after a back-off."""
    DRAINING = "draining"
    """Finishes what it has; gets nothing new."""


@message
class EngineReport:
    """What one scrape said of a replica; None where its engine does not tell.

    `kv_usage_ratio` is from 0 to 1. `kv_capacity_tokens` is the size of the KV cache in tokens,
    `max_sequences` how many requests can decode at once. Of `queue_depth`, those are
    `waiting_for_room` who wait for a place in the batch or room in the KV cache and nothing else.
    `output_tokens_total` counts from the start of the engine.
    """

    queue_depth: float | None = None
    running: float | None = None
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: float | None = None
    max_sequences: float | None = None
    waiting_for_room: float | None = None
    output_tokens_total: float | None = None


@dataclass(slots=True, eq=False)
class TpotTarget:
    """Seconds per output token, to two digits, and how many attempts in flight have them as their
    target.
    """

    target_s: float
    attempts: int


@dataclass(slots=True, eq=False)
class Replica:
    """One running copy of a model, all its GPUs, as this gateway sees it.

    The sums cover the attempts this gateway has in flight there. All of them count whole things,
    so that they return to exactly zero: `prefilling` attempts wait for their first token and bring
    `backlog_tokens` uncached prompt tokens, which attend to `backlog_pairs` tokens; the one at the
    head has been in work since `backlog_since_s`. `decoding` streams are past their first token
    and are `decoding_sequences`, which attend to `decoding_context_tokens`. All in-flight attempts
    are `sequences` when they decode, which attend to `attended_tokens`; `context_tokens` is what
    they hold in the KV cache, and `uncached_tokens` what all of them had to prefill.
    `silent` of all attempts are answered in one piece: nobody sees when their prefill ends.
    `late_prefilling` of those that wait are expected to miss their TTFT target, and
    `late_decoding` of the streams have. `tpot_targets` are those of the attempts in flight.

    The integrals over time (`batch_seconds`, `context_token_seconds`, up to `marked_s`) and the
    totals of finished prefills tell a stream at its end in what company it decoded.

    `paced_steps` are those that streams were seen to make in `paced_s`, summed over streams: their
    quotient is how long a step is.

    `recent_prefill_tokens` and `recent_prefill_pairs` are the prefills sent here, forgotten
    exponentially with the pool's `recent_s`, as of `recent_marked_s`.

    `max_sequences` is how many sequences its engine runs side by side, told or else learned
    (`sequence_limit`); None while that is not known. With so many as there are `places`, whoever
    is sent there is expected to wait: one more, where only others of the pool have shown the limit.

    `last_attempt` numbers the latest attempt sent here, over the whole fleet: what is smallest has
    been left alone for longest. `busy_until_s` is when an engine that answered 503 or 429 is
    believed to have room again.

    `blamed_by` is the first caller, since it answered anybody, whose request it did not answer and
    another pool did, at `blamed_since_s`; "" if there is none. `doubted` is as in `ReplicaChanged`,
    and `vouched` tells that it has answered what a pool is there for since.
    `suspect` is true from when a request was held because it failed it, until it is heard to be
    well.
    """

    name: str
    pool: Pool
    url: str
    index: int
    latency: ReplicaLatency
    state: ReplicaState = ReplicaState.STARTING
    adapters: frozenset[str] = frozenset()
    max_context_tokens: int | None = None
    in_flight: int = 0
    tpot_targets: list[TpotTarget] = field(default_factory=list["TpotTarget"])
    last_attempt: int = 0
    prefilling: int = 0
    silent: int = 0
    late_prefilling: int = 0
    backlog_tokens: int = 0
    backlog_pairs: float = 0.0
    backlog_since_s: float = 0.0
    uncached_tokens: int = 0
    decoding: int = 0
    late_decoding: int = 0
    decoding_sequences: int = 0
    decoding_context_tokens: int = 0
    sequences: int = 0
    attended_tokens: int = 0
    context_tokens: int = 0
    batch_seconds: float = 0.0
    context_token_seconds: float = 0.0
    marked_s: float = 0.0
    paced_s: float = 0.0
    paced_steps: float = 0.0
    prefills_done: int = 0
    prefill_tokens_done: int = 0
    prefill_pairs_done: float = 0.0
    report: EngineReport = field(default_factory=EngineReport)
    scraped_s: float | None = None
    max_sequences: float | None = None
    places: float | None = None
    busy_until_s: float = 0.0
    recent_prefill_tokens: float = 0.0
    recent_prefill_pairs: float = 0.0
    recent_marked_s: float = 0.0
    consecutive_failures: int = 0
    ejections: int = 0
    probe_at_s: float | None = None
    blamed_by: str = ""
    blamed_since_s: float = 0.0
    doubted: bool = False
    vouched: bool = False
    suspect: bool = False

    @property
    def backlog_s(self) -> float:
        """Seconds that the prefill backlog takes by the current model; 0 without a profile."""
        profile = self.pool.latency.profile
        if profile is None:
            return 0.0
        work = (self.prefilling, self.backlog_tokens, self.backlog_pairs, 0.0, 0.0)
        return self.latency.prefill_factor * profile.seconds(work)


@dataclass(slots=True, eq=False)
class Pool:
    """Interchangeable replicas: one model, one role.

    `prompt_length` and `output_tokens_mean` are learned from `answers` answers. `block_tokens` is
    what lies behind a block of a prompt if that is exact, see `PromptBlocks`.
    `reports_cached` becomes true with the first answer that tells of cached tokens: before, 0
    may mean that the engine does not say. `max_sequences` is the limit that replicas have shown and
    agree on (`sequence_limit`), None while there is none. `demand` is what a scaler is told.
    `recent_s` is how long the prefills sent to a replica are remembered, about as long as they
    concern a stream there.
    """

    spec: PoolSpec
    latency: PoolLatency
    replicas: dict[str, Replica] = field(default_factory=dict[str, "Replica"])
    prompt_length: PromptLength = field(default_factory=PromptLength)
    block_tokens: float | None = None
    output_tokens_mean: float = 350.0
    recent_s: float = 5.0
    answers: int = 0
    reports_cached: bool = False
    max_sequences: float | None = None
    demand: PoolDemand = field(default_factory=PoolDemand)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text behind one token, the template's tokens aside."""
        return 1.0 / self.prompt_length.tokens_per_byte


@dataclass(slots=True, eq=False)
class Fleet:
    """Everything that can be routed to, by name."""

    pools: dict[str, Pool] = field(default_factory=dict[str, Pool])
    aliases: dict[str, Alias] = field(default_factory=dict[str, Alias])
    replicas: dict[str, Replica] = field(default_factory=dict[str, Replica])
