"""The engine model once more, without aggregates and jumps: one step, sequence and block at a time.

It follows vLLM V1's scheduler in the order in which that does things, and shares no code with
`headrace.engine_model` but the job, the spec and the latency profile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from headrace.engine_model import EngineSpec, Job


class Action(NamedTuple):
    at_s: float
    kind: Literal["submit", "cancel", "look"]
    job: Job | None = None


class Fact(NamedTuple):
    """One thing that happened or was seen, comparable with what the model says."""

    kind: str
    at_s: float
    what: tuple[object, ...]


@dataclass(eq=False)
class Live:
    job: Job
    prefill: int
    computed: int = 0
    kv_tokens: int = 0
    emitted: int = 0
    cached: int = -1
    decoding: bool = False
    shared: list[int] = field(default_factory=list)
    private: int = 0


@dataclass
class Shared:
    size: int
    pins: int
    released: int = 0


class StepByStep:
    """Run all actions, in order of time, and drain."""

    def __init__(self, spec: EngineSpec, actions: list[Action]) -> None:
        self.spec = spec
        self.actions = actions
        self.now = 0.0
        self.free = spec.kv_capacity_tokens // spec.kv_block_tokens
        self.capacity = self.free
        self.cache: dict[int, Shared] = {}
        self.releases = 0
        self.waiting: list[Live] = []
        self.running: list[Live] = []
        self.cancelled: list[Live] = []
        self.computed: list[int] = []
        self.preemptions = 0
        self.facts: list[Fact] = []

    def run(self) -> list[Fact]:
        while True:
            self.act_until(self.now, at_boundary=True)
            if not self.waiting and not self.running:
                if not self.actions:
                    return self.facts
                self.now = self.actions[0].at_s
                continue
            self.step()

    # ---- actions

    def act_until(self, until_s: float, *, at_boundary: bool) -> None:
        """At a boundary submissions of that very time too; within a step all before its end."""
        while self.actions and (
            self.actions[0].at_s <= until_s if at_boundary else self.actions[0].at_s < until_s
        ):
            action = self.actions.pop(0)
            if action.kind == "look":
                self.facts.append(Fact("look", action.at_s, tuple(self.look())))
                continue
            assert action.job is not None
            if action.kind == "submit":
                self.waiting.append(Live(action.job, action.job.prompt_tokens))
                continue
            self.waiting = [live for live in self.waiting if live.job is not action.job]
            self.cancelled.extend(live for live in self.running if live.job is action.job)

    def look(self) -> Iterator[object]:
        evictable = sum(shared.size for shared in self.cache.values() if shared.pins == 0)
        yield len(self.waiting)
        yield len(self.running)
        yield self.capacity - self.free - evictable
        yield tuple(
            sorted(
                (live.job.id, live.emitted)
                for live in self.running + self.waiting
                if live not in self.cancelled
            )
        )

    # ---- KV blocks

    def room(self) -> int:
        return self.free + sum(shared.size for shared in self.cache.values() if shared.pins == 0)

    def take(self) -> None:
        if self.free == 0:
            unpinned = [block for block, shared in self.cache.items() if shared.pins == 0]
            oldest = min(unpinned, key=lambda block: self.cache[block].released)
            self.free += self.cache.pop(oldest).size
            self.facts.append(Fact("removed", self.now, (oldest,)))
        self.free -= 1

    def leave(self, live: Live) -> None:
        self.running.remove(live)
        self.free += live.private
        for block in reversed(live.shared):
            self.cache[block].pins -= 1
            self.releases += 1
            self.cache[block].released = self.releases
        live.private = 0
        live.shared = []
        live.decoding = False

    # ---- one step

    def step(self) -> None:
        decoding, preempted = self.allocate_decoding()
        budget = self.spec.max_batched_tokens - len(decoding)
        chunks: list[tuple[Live, int, int]] = []
        for live in self.running:
            if not live.decoding and budget:
                budget = self.chunk(live, budget, chunks)
        while not preempted and budget and self.waiting and self.admit():
            budget = self.chunk(self.running[-1], budget, chunks)
        latency = self.spec.latency
        seconds = latency.per_step_s
        for live in decoding:
            seconds += latency.per_sequence_s + latency.per_kv_token_s * live.kv_tokens
        for _, computed, tokens in chunks:
            seconds += latency.per_prefill_token_s * tokens
            seconds += latency.per_attended_token_s * tokens * (computed + tokens / 2)
        end = self.now + seconds
        self.act_until(end, at_boundary=False)
        self.now = end
        self.end(decoding, chunks)

    def allocate_decoding(self) -> tuple[list[Live], bool]:
        preempted = False
        for live in list(self.running):
            if not live.decoding or live.kv_tokens % self.spec.kv_block_tokens:
                continue
            while live in self.running and self.room() == 0:
                victim = self.running[-1]
                self.leave(victim)
                victim.prefill = victim.job.prompt_tokens + victim.emitted
                victim.computed = victim.kv_tokens = 0
                self.waiting.insert(0, victim)
                self.preemptions += 1
                preempted = True
            if live in self.running:
                self.take()
                live.private += 1
        return [live for live in self.running if live.decoding], preempted

    def admit(self) -> bool:
        live = self.waiting[0]
        if len(self.running) == self.spec.max_sequences:
            return False
        size = live.job.block_tokens // self.spec.kv_block_tokens
        hits: list[int] = []
        for block in live.job.blocks:
            if block not in self.cache:
                break
            hits.append(block)
        needed = -(-live.prefill // self.spec.kv_block_tokens) - len(hits) * size
        if needed > self.room() - sum(size for block in hits if self.cache[block].pins == 0):
            return False
        self.waiting.pop(0)
        for block in hits:
            self.cache[block].pins += 1
        for _ in range(needed):
            self.take()
        live.private = needed
        live.shared = hits
        live.computed = len(hits) * live.job.block_tokens
        while live.computed >= live.prefill:  # the last token is computed, and its KV block
            live.computed -= self.spec.kv_block_tokens
        if live.cached < 0:
            live.cached = live.computed
        self.running.append(live)
        return True

    def chunk(self, live: Live, budget: int, chunks: list[tuple[Live, int, int]]) -> int:
        tokens = min(budget, live.prefill - live.computed)
        chunks.append((live, live.computed, tokens))
        live.computed += tokens
        size = live.job.block_tokens // self.spec.kv_block_tokens
        while (
            len(live.shared) < len(live.job.blocks)
            and (len(live.shared) + 1) * live.job.block_tokens <= live.computed
        ):
            block = live.job.blocks[len(live.shared)]
            assert block not in self.cache
            self.cache[block] = Shared(size, pins=1)
            live.shared.append(block)
            self.computed.append(block)
            live.private -= size
        return budget - tokens

    def end(self, decoding: list[Live], chunks: list[tuple[Live, int, int]]) -> None:
        self.facts.extend(Fact("stored", self.now, (block,)) for block in self.computed)
        self.computed.clear()
        for live in decoding:
            live.kv_tokens += 1
            self.emit(live)
        for live, _, _ in chunks:
            if live.computed == live.prefill:
                live.kv_tokens = live.prefill
                live.decoding = True
                if live.emitted == 0 and live not in self.cancelled:
                    self.facts.append(Fact("first", self.now, (live.job.id, live.cached)))
                self.emit(live)
        for live in self.cancelled:
            if live in self.running:
                self.leave(live)
        self.cancelled.clear()

    def emit(self, live: Live) -> None:
        live.emitted += 1
        if live.emitted < live.job.output_tokens:
            return
        self.leave(live)
        if live not in self.cancelled:
            self.facts.append(Fact("end", self.now, (live.job.id,)))
