"""From a request to a replica: size it, find its prefix, price the candidates, pick the lowest."""

from __future__ import annotations

from operator import attrgetter
from typing import Final

from headrace.core.candidates import Ask, Candidate, Policy, Scope
from headrace.core.catalog import Serving, lightest
from headrace.core.kv_event_index import Index
from headrace.core.model import (
    PROMPT_BLOCK_BYTES,
    TEMPLATED,
    Endpoint,
    Pool,
    Replica,
    Request,
    Rng,
)
from headrace.core.prompt_marks import EVERY_BLOCK, blocks_covered, mix_identity

MOST_SCORED: Final = 32
"""Replicas that are all scored; of more, a shortlist is."""
BEST_HOLDERS: Final = 8
MOST_ALIKE: Final = 16
"""Holders of equally much of a prompt that are looked at, from a random one on."""
LEAST_LOADED: Final = 4
AT_RANDOM: Final = 2
PAIR: Final = 2
_NAME: Final = attrgetter("name")
_SHORTLIST: Final = Scope.SHORTLIST
_PAIR: Final = Scope.PAIR
_EMBEDDINGS: Final = Endpoint.EMBEDDINGS
CONTEXT_MARGIN: Final = 1.1
"""How far an estimated prompt must exceed a context before it counts as too long for it."""


def ask_of(request: Request, pool: Pool, adapter: str) -> Ask:
    """Sizes a request by what was learned of its pool; `adapter` is "" for the base model."""
    length, overhead_tokens = pool.prompt_length, 0.0
    tokens_per_block = PROMPT_BLOCK_BYTES * length.tokens_per_byte
    if request.prompt_tokens is not None:
        tokens = max(1, request.prompt_tokens)
        if request.blocks:
            # What was hashed is the ids: the chain's length tells how many are a block.
            tokens_per_block = tokens / (blocks_covered(len(request.blocks)) + 0.5)
    else:
        templated = request.endpoint in TEMPLATED
        if templated:
            overhead_tokens = length.overhead_tokens
        text_tokens = length.estimate(request.text_bytes, templated)
        tokens = rounded(text_tokens)
        if request.media_items:
            tokens += request.media_items * pool.spec.media_tokens
        tokens = tokens or 1
    output_tokens = pool.output_tokens_mean
    if request.endpoint is _EMBEDDINGS:
        output_tokens = 0.0
    elif request.max_output_tokens is not None:
        limit = request.max_output_tokens
        output_tokens = limit if limit < output_tokens else output_tokens
    marks = request.blocks
    if adapter:
        marks = mix_identity(marks, adapter)
    ask = Ask(tokens, tokens_per_block, output_tokens, marks, overhead_tokens)
    if pool.block_tokens is not None:
        ask.tokens_per_block, ask.fine_blocks = pool.block_tokens, EVERY_BLOCK
        ask.overhead_tokens = 0.0
    if request.sequences > 1 and request.endpoint is not _EMBEDDINGS:  # none is decoded
        ask.sequences = request.sequences
        ask.attended_tokens = tokens * request.choices
    return ask


def rounded(number: float) -> int:
    """What `round` says of a number that is not negative; compiled code has to box it for that."""
    whole = int(number)
    rest = number - whole
    return whole + (rest > 0.5 or (rest == 0.5 and whole % 2 == 1))


def context_needed(request: Request, ask: Ask) -> float:
    """The shortest context, in tokens, that may hold the prompt and one token of the answer."""
    needed = ask.prompt_tokens + 1
    return needed if request.prompt_tokens is not None else needed / CONTEXT_MARGIN


def price(
    ask: Ask,
    serving: Serving,
    index: Index,
    policy: Policy,
    *,
    rng: Rng,
    now: float,
    any_full: bool,
) -> list[Candidate]:
    """Look up the prefix and price the replicas of `serving` that the policy wants to see.

    `any_full` tells whether some replica, of whatever model, said lately that it is full.
    """
    ask.hits, ask.index = index.lookup(ask.marks, serving.mask), index
    replicas, scope = serving.replicas, policy.scope
    if scope is _SHORTLIST and len(replicas) > MOST_SCORED:
        replicas = shortlist(serving, ask, rng)
    if any_full and not policy.holds:
        # Who does not reckon in seconds does not see for how long one is full.
        replicas = _with_room(replicas, now)
    if scope is _PAIR and len(replicas) > PAIR:
        replicas = pair(replicas, rng)
    return policy.price(ask, replicas, now)


def _with_room(replicas: list[Replica], now: float) -> list[Replica]:
    """Those that did not say lately that they are full, or all if each did."""
    room = [replica for replica in replicas if now >= replica.busy_until_s]
    return room if 0 < len(room) < len(replicas) else replicas


def shortlist(serving: Serving, ask: Ask, rng: Rng) -> list[Replica]:
    """The best prefix holders, the least loaded and a few at random, in the order of names.

    The random ones keep a large fleet from sending everything to what looked best at one time.
    """
    replicas, by_index = serving.replicas, serving.by_index
    chosen = set(serving.least_loaded(LEAST_LOADED))
    wanted = BEST_HOLDERS
    for _, holders in ask.hits:
        start = int(rng.random() * holders.bit_length())
        alike = [by_index[index] for index in _some_of(holders, start, MOST_ALIKE)]
        if len(alike) > wanted:
            alike = lightest(alike, wanted)
        chosen.update(alike)
        wanted -= len(alike)
        if wanted <= 0:
            break
    for _ in range(AT_RANDOM):
        chosen.add(replicas[int(rng.random() * len(replicas))])
    return sorted(chosen, key=_NAME)


def _some_of(mask: int, start: int, most: int) -> list[int]:
    """At most so many bits of a mask, the first from `start` on, then those before it."""
    found: list[int] = []
    from_start = mask >> start << start
    for part in (from_start, mask ^ from_start):
        left = part
        while left and len(found) < most:
            lowest = left & -left
            found.append(lowest.bit_length() - 1)
            left ^= lowest
    return found


def pair(replicas: list[Replica], rng: Rng) -> list[Replica]:
    """Two different replicas at random, every pair as likely, in the order of names."""
    first = int(rng.random() * len(replicas))
    # One of the others: those from `first` on are one further.
    second = int(rng.random() * (len(replicas) - 1))
    second += second >= first
    return [replicas[min(first, second)], replicas[max(first, second)]]
