"""llama.cpp's server."""

from __future__ import annotations

import msgspec

from headrace.core.model import Endpoint
from headrace.engines.dialect import Dialect
from headrace.engines.exposition import parse
from headrace.engines.reading import Answers, EngineReading
from headrace.engines.usage import UsageRule
from headrace.engines.wire import decode

NAMES: dict[str, tuple[str, ...]] = {
    "queue_depth": ("llamacpp:requests_deferred",),
    "running": ("llamacpp:requests_processing",),
    "output_tokens_total": ("llamacpp:tokens_predicted_total",),
    "cached_input_tokens_total": ("llamacpp:prompt_tokens_cached_total",),
}
_PREFILLED = ("llamacpp:prompt_tokens_total",)
_WANTED = frozenset(name for names in (*NAMES.values(), _PREFILLED) for name in names)


class _NextToken(msgspec.Struct):
    n_decoded: int = 0


class _Slot(msgspec.Struct):
    n_ctx: int = 0
    is_processing: bool = False
    n_prompt_tokens: int = 0
    n_prompt_tokens_processed: int = 0
    n_prompt_tokens_cache: int = 0
    next_token: list[_NextToken] | _NextToken | None = None

    @property
    def held_tokens(self) -> int:
        """Tokens of KV cache that the slot's running request holds or has claimed.

        While a prompt is read, `n_prompt_tokens` is its whole length: the slot will hold it within
        a step or two. While tokens are generated, recent builds count them into
        `n_prompt_tokens` (seen: 64 with 11 processed and 53 decoded), so adding `n_decoded` would
        count them twice; older builds leave it at the prompt's length. The greater of it and
        of evaluated plus decoded tokens is right in every case. A context shift throws old
        tokens out and leaves the counters, hence the bound.
        """
        nexts = self.next_token if isinstance(self.next_token, list) else [self.next_token]
        decoded = sum(token.n_decoded for token in nexts if token is not None)
        evaluated = self.n_prompt_tokens_processed + self.n_prompt_tokens_cache + decoded
        return min(max(self.n_prompt_tokens, evaluated), self.n_ctx)


_SLOTS = msgspec.json.Decoder(list[_Slot])


def read(answers: Answers) -> EngineReading:
    """Read `/metrics` and `/slots`; a server may be started with either, both or none."""
    status, body = answers.get("/metrics", (0, b""))
    metrics = parse(body if status == 200 else b"", _WANTED)
    status, body = answers.get("/slots", (0, b""))
    slots = decode(_SLOTS, body) if status == 200 else None

    cached = metrics.total(NAMES["cached_input_tokens_total"])
    prefilled = metrics.total(_PREFILLED)
    running = metrics.total(NAMES["running"])
    capacity = used = None
    if slots:
        # What idle slots retain is reclaimed when a request needs the room: it is not in use.
        processing = [slot for slot in slots if slot.is_processing]
        capacity = float(sum(slot.n_ctx for slot in slots))
        used = float(sum(slot.held_tokens for slot in processing))
        running = float(len(processing)) if running is None else running
    return EngineReading(
        queue_depth=metrics.total(NAMES["queue_depth"]),
        running=running,
        kv_usage_ratio=used / capacity if capacity and used is not None else None,
        kv_capacity_tokens=capacity,
        kv_used_tokens=used,
        max_sequences=float(len(slots)) if slots else None,
        # `prompt_tokens_total` leaves cached tokens out: together they are what was asked.
        input_tokens_total=None if prefilled is None else prefilled + (cached or 0),
        output_tokens_total=metrics.total(NAMES["output_tokens_total"]),
        cached_input_tokens_total=cached,
        skipped_lines=metrics.skipped_lines,
    )


DIALECT = Dialect(
    name="llamacpp",
    title="llama.cpp",
    evidence="answers of llama.cpp as in `xllamacpp` 2026.10.11549",
    read=read,
    metrics_paths=("/metrics", "/slots"),
    sources={
        **NAMES,
        "input_tokens_total": (
            "llamacpp:prompt_tokens_total + llamacpp:prompt_tokens_cached_total",
        ),
        "kv_capacity_tokens": ("GET /slots: sum of n_ctx",),
        "kv_used_tokens": (
            "GET /slots, processing: sum of max(n_prompt_tokens, processed + cache + n_decoded)",
        ),
        "kv_usage_ratio": ("kv_used_tokens / kv_capacity_tokens",),
        "max_sequences": ("GET /slots: their number",),
    },
    usage_rules={
        Endpoint.CHAT: UsageRule(
            where="a chunk per choice, whose `choices` is empty; a whole answer tells that of its "
            "first choice, and the output of others is reckoned by their length",
            inject_usage=True,
            usage_per_choice=True,
            whole_of_first_choice=True,
        ),
        # It comes unasked as well. Asking makes the gateway take it out again for clients
        # that did not want it, as the API has it.
        Endpoint.COMPLETIONS: UsageRule(
            where="the last chunk of each choice, beside its `finish_reason`; of a whole answer as "
            "for chats, the input of further prompts is not told",
            inject_usage=True,
            usage_per_choice=True,
            whole_of_first_choice=True,
        ),
        Endpoint.EMBEDDINGS: UsageRule(where="the body"),
        Endpoint.RESPONSES: UsageRule(where="`response.completed`"),
        Endpoint.MESSAGES: UsageRule(
            where="input from `message_start` (with `cache_read_input_tokens`), output from "
            "`message_delta`"
        ),
    },
    closes_after_stream=True,
    derived=frozenset({"input_tokens_total", "kv_used_tokens", "kv_usage_ratio"}),
    sends_at_once=True,
)
