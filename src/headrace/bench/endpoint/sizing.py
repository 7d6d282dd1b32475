"""How many words make the planned number of tokens: asked of the best source there is.

| source | what it tells | needs |
|---|---|---|
| `--tokenizer FILE` | which words are one token | the extra `tokenizer` |
| the engine's `/tokenize` | the same; vLLM's also what the chat template adds | the engine itself |
| `usage` of two or three short answers | tokens per word, what the template adds | nothing |

What the template adds is taken from `usage` where `/tokenize` does not know. Whatever the source,
the counts in a report are those of each answer's own usage.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from headrace.bench.endpoint import remedies
from headrace.bench.endpoint.requests import PATHS, authorization
from headrace.bench.endpoint.tokenizer import open_tokenizer
from headrace.bench.settings import BenchError, BenchSettings
from headrace.core.model import Endpoint
from headrace.core.usage_belief import can_be
from headrace.edges.http.fetch import FetchError, FetchResult, post
from headrace.engines.answers import read_body
from headrace.traffic.planned import PlannedRequest
from headrace.traffic.texts import LEAST_WORDS, WORDS, Sizing, Texts, candidate_text

PROBE_WORDS = (64, 192)
"""Lengths of the answers' prompts that tokens per word are taken from."""
PROBE_SHARED_WORDS = 32
EXACT = 0.005
"""Tokens per word this close to 1 are 1: what is left comes from where a probe's words end."""
_REFUSED = frozenset((400, 401, 403, 404, 405, 422))
"""Statuses that a run would get for each request."""

Count = Callable[[str], Awaitable[int | None]]
"""Tokens of a text; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks the endpoint."""

    settings: BenchSettings
    url: str
    model: str

    async def post(self, path: str, body: dict[str, Any]) -> FetchResult | None:
        """The answer, None if there was none in time.

        Raises:
            BenchError: no connection can be made.
        """
        settings = self.settings
        headers = authorization(settings)
        payload = msgspec.json.encode(body)
        try:
            return await post(
                self.url + path, payload, timeout_s=settings.connect_s, headers=headers
            )
        except FetchError as error:
            if str(error).startswith("cannot connect"):
                said = remedies.of_failure(error)
                raise BenchError(f"{self.settings.url}: {said}") from None
            return None


async def size_prompts(settings: BenchSettings, asker: Asker) -> Sizing:
    """The best sizing there is.

    Raises:
        BenchError: the tokenizer cannot be used, or the endpoint refuses requests like ours.
    """
    sizing = Sizing(tokens_per_word=0.0)
    if settings.tokenizer is not None:
        known = await _known_words(_file_counter(settings.tokenizer))
        sizing = replace(sizing, by="tokenizer file", words=known, tokens_per_word=1.0)
    else:
        count = await _engine_counter(asker)
        known = await _known_words(count) if count is not None else ()
        if len(known) >= LEAST_WORDS:
            sizing = replace(sizing, by="/tokenize", words=known, tokens_per_word=1.0)
    template = await _template_by_tokenize(asker) if sizing.tokens_per_word else None
    if template is not None:
        return replace(sizing, template_tokens=template[0], shared_template_tokens=template[1])
    return await _by_usage(asker, sizing)


# ------------------------------------------------------------ which words are one token


async def _known_words(count: Count) -> tuple[str, ...]:
    """Those of `WORDS` that are one token each, found by halving where not all are."""
    groups: list[tuple[str, ...]] = [WORDS]
    known: list[str] = []
    while groups:
        group = groups.pop()
        tokens = await count(candidate_text(group))
        if tokens is None:
            return ()
        if tokens == len(group):
            known += group
        elif len(group) > 1:
            half = len(group) // 2
            groups += [group[half:], group[:half]]
    return tuple(known)


def _file_counter(path: Path) -> Count:
    count_tokens = open_tokenizer(path)

    async def count(text: str) -> int | None:
        return count_tokens(text)

    return count


async def _engine_counter(asker: Asker) -> Count | None:
    """VLLM's form of `/tokenize` or llama.cpp's, whichever is understood."""
    forms = (
        lambda text: {"model": asker.model, "prompt": text, "add_special_tokens": False},
        lambda text: {"content": text, "add_special": False},
    )
    for form in forms:

        async def count(text: str, form: Callable[[str], dict[str, Any]] = form) -> int | None:
            answer = await asker.post("/tokenize", form(text))
            return None if answer is None or answer.status != 200 else _tokens(answer.body)

        # llama.cpp answers the other form with no tokens at all.
        if await count(candidate_text(WORDS[:2])):
            return count
    return None


class _Tokenized(msgspec.Struct):
    count: int | None = None
    tokens: list[msgspec.Raw] | None = None


def _tokens(body: bytes) -> int | None:
    try:
        told = msgspec.json.decode(body, type=_Tokenized)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return told.count if told.count is not None or told.tokens is None else len(told.tokens)


# ------------------------------------------------------------ what the template adds


async def _template_by_tokenize(asker: Asker) -> tuple[int, int] | None:
    """Without and with a system message; None where `/tokenize` knows no messages."""
    if asker.settings.endpoint != "chat":
        return None
    added: list[int] = []
    for roles in (("user",), ("system", "user")):
        messages = [{"role": role, "content": candidate_text(WORDS[:16])} for role in roles]
        answer = await asker.post("/tokenize", {"model": asker.model, "messages": messages})
        tokens = _tokens(answer.body) if answer is not None and answer.status == 200 else None
        if not tokens or tokens < 16 * len(roles):
            return None
        added.append(tokens - 16 * len(roles))
    return added[0], added[1]


async def _by_usage(asker: Asker, sizing: Sizing) -> Sizing:
    """Fill in what is not known from the usage of short answers."""
    usable = replace(sizing, tokens_per_word=1.0)
    short = await _probe(asker, usable, PROBE_WORDS[0])
    if short is None:
        return usable
    per_word = sizing.tokens_per_word
    by = sizing.by
    if not per_word:
        long = await _probe(asker, usable, PROBE_WORDS[1])
        if long is None or long <= short:
            return usable
        per_word = (long - short) / (PROBE_WORDS[1] - PROBE_WORDS[0])
        per_word = 1.0 if abs(per_word - 1.0) < EXACT else per_word
        by = "usage"
    template = max(0.0, short - per_word * PROBE_WORDS[0])
    shared = template
    if asker.settings.endpoint == "chat":
        words = PROBE_WORDS[0] + PROBE_SHARED_WORDS
        both = await _probe(asker, usable, words, PROBE_SHARED_WORDS)
        shared = template if both is None else max(0.0, both - per_word * words)
    return replace(
        sizing,
        tokens_per_word=per_word,
        template_tokens=template,
        shared_template_tokens=shared,
        by=by,
    )


async def _probe(asker: Asker, sizing: Sizing, words: int, shared_words: int = 0) -> int | None:
    """Prompt tokens of a prompt of so many words, of them some in a system message."""
    texts = Texts(sizing, seed=-1, block_tokens=1)
    planned = PlannedRequest(0.0, words, 1, shared_tokens=shared_words)
    shared, own = (text.decode() for text in texts.prompt(planned, words))
    body: dict[str, Any] = {"model": asker.model, "max_tokens": 1}
    if asker.settings.endpoint == "chat":
        system = [{"role": "system", "content": shared}] if shared else []
        body["messages"] = [*system, {"role": "user", "content": own}]
    else:
        body["prompt"] = shared + own
    path = PATHS[asker.settings.endpoint]
    answer = await asker.post(path, body)
    if answer is None:
        return None
    if not shared_words and (answer.status in _REFUSED or 300 <= answer.status < 400):
        raise BenchError(f"{asker.url}{path}: a first request got {remedies.of_first(answer)}")
    usage = read_body(Endpoint.CHAT, answer.body).usage if answer.status == 200 else None
    if usage is None or not can_be(usage, input_tokens=words, max_tokens=1, chunks=0):
        return None
    return usage.input_tokens or None
