"""From a request to a replica: size it, find its prefix, price the candidates, pick the lowest."""

from __future__ import annotations

from heapq import nsmallest

from headrace.core.candidates import Ask, Policy, Row, Scope
from headrace.core.catalog import Serving
from headrace.core.model import (
    PROMPT_BLOCK_BYTES,
    TEMPLATED,
    Endpoint,
    Pool,
    Replica,
    Request,
    Rng,
)
from headrace.core.prefix_index import (
    EVERY_BLOCK,
    FINE_BLOCKS,
    Index,
    marks_of,
    mix_identity,
)

MOST_SCORED = 32
"""Replicas that are all scored; of more, a shortlist is."""
BEST_HOLDERS = 8
LEAST_LOADED = 16
AT_RANDOM = 8
MOST_RANKED = 128
"""Replicas that are ranked by load."""
PAIR = 2
CONTEXT_MARGIN = 1.1
"""How far an estimated prompt must exceed a context before it counts as too long for it."""


def prompt_tokens(request: Request, pool: Pool) -> int:
    """The length of a prompt: exact where it came as token ids, else estimated from its bytes."""
    if request.prompt_tokens is not None:
        return max(1, request.prompt_tokens)
    tokens = pool.prompt_length.estimate(request.text_bytes, request.endpoint in TEMPLATED)
    return max(1, round(tokens) + request.media_items * pool.spec.media_tokens)


def ask_of(request: Request, pool: Pool, adapter: str) -> Ask:
    """Sizes a request by what was learned of its pool; `adapter` is "" for the base model."""
    tokens = prompt_tokens(request, pool)
    length, overhead_tokens = pool.prompt_length, 0.0
    tokens_per_block = PROMPT_BLOCK_BYTES * length.tokens_per_byte
    fine_blocks = FINE_BLOCKS
    if pool.block_tokens is not None:
        tokens_per_block, fine_blocks = pool.block_tokens, EVERY_BLOCK
    elif request.prompt_tokens is None:
        if request.endpoint in TEMPLATED:
            overhead_tokens = length.overhead_tokens
    elif request.blocks:
        # What was hashed is the ids, not the text: the chain's length tells how many are a block.
        tokens_per_block = tokens / (len(request.blocks) + 0.5)
    output_tokens = pool.output_tokens_mean
    if request.endpoint is Endpoint.EMBEDDINGS:
        output_tokens = 0.0
    elif request.max_output_tokens is not None:
        output_tokens = min(output_tokens, request.max_output_tokens)
    marks = marks_of(request.blocks, fine_blocks)
    if adapter:
        marks = mix_identity(marks, adapter)
    return Ask(
        tokens, tokens_per_block, output_tokens, marks, overhead_tokens, fine_blocks=fine_blocks
    )


def context_needed(request: Request, ask: Ask) -> float:
    """The shortest context, in tokens, that may hold the prompt and one token of the answer."""
    needed = ask.prompt_tokens + 1
    return needed if request.prompt_tokens is not None else needed / CONTEXT_MARGIN


def price(
    ask: Ask, serving: Serving, index: Index, policy: Policy, *, rng: Rng, now: float
) -> list[Row]:
    """Look up the prefix and price the replicas of `serving` that the policy wants to see."""
    ask.hits, ask.index = index.lookup(ask.marks, serving.mask), index
    replicas, scope = serving.replicas, policy.scope
    if scope is Scope.SHORTLIST and len(replicas) > MOST_SCORED:
        replicas = shortlist(serving, ask, rng)
    elif scope is Scope.PAIR and len(replicas) > PAIR:
        replicas = pair(replicas, rng)
    return policy.price(ask, replicas, now)


def shortlist(serving: Serving, ask: Ask, rng: Rng) -> list[Replica]:
    """The best prefix holders, the least loaded and a few at random, in the order of names.

    Of a very large fleet the least loaded are those of `MOST_RANKED`, other ones each time: with
    so many to choose from the best is as good as the best of all, and costs a tenth. The random
    ones keep a large fleet from sending everything to what looked best at one time.
    """
    replicas, by_index = serving.replicas, serving.by_index
    ranked = replicas
    if len(replicas) > MOST_RANKED:
        start = int(rng.random() * len(replicas))
        ranked = replicas[start : start + MOST_RANKED]
        ranked += replicas[: MOST_RANKED - len(ranked)]
    chosen = {replica.index: replica for replica in nsmallest(LEAST_LOADED, ranked, key=_load)}
    wanted = BEST_HOLDERS
    for _, holders in ask.hits:
        if wanted <= 0:
            break
        alike = [by_index[index] for index in _some_of(holders, rng)]
        chosen.update((each.index, each) for each in nsmallest(wanted, alike, key=_load))
        wanted -= len(alike)
    for _ in range(AT_RANDOM):
        replica = replicas[int(rng.random() * len(replicas))]
        chosen[replica.index] = replica
    return sorted(chosen.values(), key=_name)


def _some_of(mask: int, rng: Rng) -> list[int]:
    """The indices in a bit mask; of more than `MOST_RANKED` as many in a row, from any on."""
    start = 0
    if mask.bit_count() > MOST_RANKED:
        start = int(rng.random() * mask.bit_length())
    indices: list[int] = []
    above = mask >> start << start
    for part in (above, mask ^ above):
        left = part
        while left and len(indices) < MOST_RANKED:
            lowest = left & -left
            indices.append(lowest.bit_length() - 1)
            left ^= lowest
    return indices


def pair(replicas: list[Replica], rng: Rng) -> list[Replica]:
    """Two different replicas at random, every pair as likely, in the order of names."""
    first = int(rng.random() * len(replicas))
    # One of the others: those from `first` on are one further.
    second = int(rng.random() * (len(replicas) - 1))
    second += second >= first
    return [replicas[min(first, second)], replicas[max(first, second)]]


def _name(replica: Replica) -> str:
    return replica.name


def _load(replica: Replica) -> tuple[int, int, str]:
    return (replica.backlog_tokens, replica.in_flight, replica.name)
