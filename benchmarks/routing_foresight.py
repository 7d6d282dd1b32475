"""A policy that breaks the information rule on purpose: it knows the engines and who will come.

    cost = own seconds to first token + those of the next `HORIZON` requests of the trace,
           each of which goes where wait + 2 * prefill is least by then

It tries each promising replica and plays what follows on sketches of the engines: when each has
worked off its queue, and a cache that forgets what was not used for longest. So a copy that others
will use is worth its prefill, and a block that is asked for again is worth keeping, as far as the
horizon goes. Only the mean wait counts; whose TPOT is missed does not.
"""

# ruff: noqa: SLF001 - it looks where nobody else may
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from benchmarks.routing_truth import Truth
from headrace.core.candidates import Ask, Candidate, Scope, candidate_at, see
from headrace.core.cost_term import CostTerm
from headrace.core.model import Replica
from headrace.engine_model import EngineModel
from headrace.engine_model.sequence import WAITING
from headrace.traffic.trace import TraceRequest

HORIZON = 20
"""Requests; 200 did no better."""
PROMISING = 6
"""Replicas that are tried: those where wait + prefill are least, and wait + 2 * prefill."""
OTHERS_WEIGHT = 1.0


class _Sketch:
    """An engine in few words: when its queue is worked off, and what it has cached."""

    __slots__ = ("block_tokens", "blocks", "cached", "decoding_s", "free_s", "kv_block", "latency")

    def __init__(self, engine: EngineModel, block_tokens: int, now: float) -> None:
        spec, kv, batch = engine.spec, engine._kv, engine._batch
        self.latency, self.block_tokens = spec.latency, block_tokens
        self.kv_block = spec.kv_block_tokens
        size = max(1, block_tokens // spec.kv_block_tokens)
        shared = len(kv._pins) - len(kv._unpinned)
        private = kv.capacity_blocks - kv.free_blocks - kv.evictable_blocks - shared * size
        self.blocks = (kv.capacity_blocks - private) // size
        # What is pinned leaves last.
        self.cached = dict.fromkeys(kv._unpinned)
        self.cached.update(dict.fromkeys(each for each in kv._pins if each not in kv._unpinned))
        self.decoding_s = (
            self.latency.step_s(batch.count, batch.context_tokens) - self.latency.per_step_s
        )
        if engine._chunks:
            self.free_s = engine._end_s
        else:
            self.free_s = (
                now + (self.decoding_s + self.latency.per_step_s if batch.count else 0) / 2
            )
        partial = engine._partial
        if partial is not None:
            computed = partial.computed_tokens
            left = partial.prefill_tokens - computed
            self.free_s += self.latency.prefill_s(left, computed)
        for sequence in engine._waiting:
            assert sequence.serial == WAITING
            job = sequence.job
            self.send(job.blocks, sequence.prefill_tokens, now)

    def copied(self) -> _Sketch:
        """To be played without the other one's notice."""
        other = _Sketch.__new__(_Sketch)
        other.latency, other.block_tokens, other.kv_block = (
            self.latency,
            self.block_tokens,
            self.kv_block,
        )
        other.blocks, other.decoding_s, other.free_s = self.blocks, self.decoding_s, self.free_s
        other.cached = self.cached.copy()
        return other

    def prefill_s(self, blocks: Sequence[int], tokens: int) -> float:
        """What of the prompt is not cached; hits are its first blocks."""
        cached = self.cached
        most = (tokens - 1) // self.kv_block * self.kv_block
        held = bisect_left(blocks, True, key=lambda block: block not in cached)
        hit = min(held * self.block_tokens, most)
        return self.latency.prefill_s(tokens - hit, hit) + self.decoding_s

    def send(self, blocks: Sequence[int], tokens: int, now: float) -> float:
        """Queue a prompt; return when its first token comes."""
        prefill_s = self.prefill_s(blocks, tokens)
        self.free_s = max(self.free_s, now) + prefill_s
        cached = self.cached
        for block in reversed(blocks):  # the deepest is forgotten first
            cached.pop(block, None)
            cached[block] = None
        over = len(cached) - self.blocks
        if over > 0:
            for block in [block for block, _ in zip(cached, range(over), strict=False)]:
                del cached[block]
        return self.free_s


class Foreseeing:
    """Tries replicas and plays what follows."""

    scope = Scope.ALL
    holds = False

    def __init__(self, truth: Truth, horizon: int = HORIZON) -> None:
        self._truth = truth
        self._horizon = horizon

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        """The promising ones by what follows, others not at all."""
        truth = self._truth
        request = truth.request
        sketches = [_Sketch(truth.engine(each.name), truth.block_tokens, now) for each in replicas]
        after = truth.requests[truth.row + 1 : truth.row + 1 + self._horizon]
        rows = see(ask, replicas)
        return [
            candidate_at(_total_s(sketches, at, request, after, now), replicas[at], rows[at])
            for at in _promising(sketches, request, now)
        ]

    def chosen(self, replica: str) -> None:
        """Nothing to remember."""

    def left(self, replica: str) -> None:
        """Nothing to forget."""

    def terms(self, candidate: Candidate) -> tuple[CostTerm, ...]:
        """One figure."""
        return (CostTerm("seconds of all that follow", candidate.cost, "s"),)


def _promising(sketches: list[_Sketch], request: TraceRequest, now: float) -> list[int]:
    met = [
        (max(each.free_s - now, 0.0), each.prefill_s(request.blocks, request.input_tokens))
        for each in sketches
    ]
    found: list[int] = []
    for weight in (1.0, 2.0):
        order = sorted(range(len(met)), key=lambda at: met[at][0] + weight * met[at][1])
        found += order[: PROMISING // 2 if weight > 1.0 else PROMISING]
    return list(dict.fromkeys(found))[:PROMISING]


def _total_s(
    sketches: list[_Sketch],
    chosen: int,
    request: TraceRequest,
    after: Sequence[TraceRequest],
    now: float,
) -> float:
    """Waits of this request and of those after it, if it goes to this replica."""
    played = [each.copied() for each in sketches]
    total_s = played[chosen].send(request.blocks, request.input_tokens, now) - now
    weight = 1.0 + OTHERS_WEIGHT
    for each in after:
        at_s, blocks, tokens = each.arrival_s, each.blocks, each.input_tokens
        least, best = float("inf"), played[0]
        for sketch in played:
            cost = weight * sketch.prefill_s(blocks, tokens) + max(sketch.free_s - at_s, 0.0)
            if cost < least:
                least, best = cost, sketch
        total_s += best.send(blocks, tokens, at_s) - at_s
    return total_s
