"""A timing source that batches, caches and waits as an engine does: the engine model in real time.

    virtual time = (now - origin) * speed          token of step k comes when step k ends

The model runs in its own time, one step per call of `advance`. A late call does not move what
follows, so lateness does not add up over a stream; only after a stall (a busy machine) the model's
clock is set back by it, since no engine makes up for one by a burst.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nextafter
from typing import NamedTuple, TypeAlias

import xxhash

from headrace.emulator.prompt import BYTES_PER_TOKEN
from headrace.emulator.timing import Generation, Occupancy
from headrace.engine_model import (
    BlocksRemoved,
    BlocksStored,
    EngineModel,
    EngineSpec,
    FirstToken,
    Happening,
    Job,
)

SLACK_S = 0.0005
"""A step that ends this soon is taken now: timers of event loops count whole milliseconds."""
STALL_S = 0.1
"""Lateness above which time is taken to have stood still."""


class AllCleared(NamedTuple):
    """Nothing is cached any more."""

    at_s: float


KvChange: TypeAlias = BlocksStored | BlocksRemoved | AllCleared
KvListener: TypeAlias = Callable[[Sequence[KvChange]], None]
"""Told what one step changed in the prefix cache; the job of `BlocksStored` is a `PromptJob`."""


class PromptJob(Job):
    """A job that remembers its generation."""

    __slots__ = ("generation",)

    def __init__(self, number: int, generation: Generation, block_tokens: int) -> None:
        blocks = block_hashes(generation.prompt, block_tokens)
        super().__init__(
            number, generation.prompt_tokens, generation.output_tokens, blocks, block_tokens
        )
        self.generation = generation


class ModelledTiming:
    """Tokens when `EngineModel` has them, `speed` times as fast.

    Prefix blocks are the model's KV blocks, known by chained hashes of the prompt's text.
    """

    def __init__(
        self, spec: EngineSpec, *, speed: float = 1.0, on_kv: KvListener | None = None
    ) -> None:
        self._model = EngineModel(spec, records_kv=on_kv is not None)
        self._block_tokens = spec.kv_block_tokens
        self._speed = speed
        self._on_kv = on_kv
        self._jobs: dict[Generation, PromptJob] = {}
        self._streaming: dict[int, PromptJob] = {}  # have had a token, and get more
        self._submitted = 0
        self._origin_s: float | None = None
        self._now = 0.0  # virtual, within the step in work

    def submit(self, generation: Generation, now: float) -> None:
        """See `TimingSource.submit`.

        Raises:
            ValueError: it can never fit in the KV cache.
        """
        if self._origin_s is None:
            self._origin_s = now
        self._submitted += 1
        job = PromptJob(self._submitted, generation, self._block_tokens)
        virtual = (now - self._origin_s) * self._speed
        # Not past the step in work, whose tokens are still to be told, even if it should be over.
        step_end_s = self._model.next_step_s(self._now)
        self._now = max(self._now, min(virtual, nextafter(step_end_s, 0.0)))
        self._model.submit(job, self._now)
        self._jobs[generation] = job

    def cancel(self, generation: Generation) -> None:
        """See `TimingSource.cancel`."""
        job = self._jobs.pop(generation, None)
        if job is not None:
            self._streaming.pop(job.id, None)
            self._model.cancel(job, self._now)

    def wake_s(self) -> float:
        """See `TimingSource.wake_s`: the end of the step in work."""
        return self._real(self._model.next_step_s(self._now))

    def advance(self, now: float) -> Sequence[Generation]:
        """See `TimingSource.advance`: what the step in work gives, if it is over."""
        step_end_s = self._model.next_step_s(self._now)
        late_s = now - self._real(step_end_s)
        if late_s < -SLACK_S:
            return ()
        if late_s > STALL_S and self._origin_s is not None:
            self._origin_s += late_s
        self._now = step_end_s
        due: list[Generation] = []
        changes: list[KvChange] = []
        for happening in self._model.advance(step_end_s):
            self._take(happening, due, changes)
        decoded_tokens = self._model.decoded_tokens
        for job in self._streaming.values():
            if decoded_tokens(job, step_end_s) > job.generation.produced:
                job.generation.produced += 1
                due.append(job.generation)
        if changes and self._on_kv is not None:
            self._on_kv(changes)
        return due

    def forget(self) -> None:
        """See `TimingSource.forget`."""
        before = self._model
        self._model = EngineModel(before.spec, records_kv=self._on_kv is not None)
        self._model.preemptions = before.preemptions
        self._model.query_tokens = before.query_tokens
        self._model.hit_tokens = before.hit_tokens
        if self._on_kv is not None:
            self._on_kv([AllCleared(self._now)])

    def occupancy(self) -> Occupancy:
        """See `TimingSource.occupancy`."""
        model = self._model
        return Occupancy(model.waiting, model.running, model.kv_usage_ratio, model.preemptions)

    def looked_up(self) -> tuple[int, int]:
        """See `TimingSource.looked_up`: at their first admission, so before their first token."""
        return self._model.query_tokens, self._model.hit_tokens

    def _take(self, happening: Happening, due: list[Generation], changes: list[KvChange]) -> None:
        if isinstance(happening, KvChange):
            changes.append(happening)
            return
        job = happening.job
        assert isinstance(job, PromptJob)
        generation = job.generation
        if isinstance(happening, FirstToken):
            generation.cached_tokens = happening.cached_tokens
            # A stall since then has moved the model's clock.
            admitted_s = self._real(happening.admitted_s)
            generation.admitted_s = max(generation.submitted_s, admitted_s)
            self._streaming[job.id] = job
        else:
            del self._jobs[generation]
            del self._streaming[job.id]
            if generation.done:
                return  # a single token, which came as the first
        generation.produced += 1
        due.append(generation)

    def _real(self, virtual: float) -> float:
        return (self._origin_s or 0.0) + virtual / self._speed


def block_hashes(prompt: bytes, block_tokens: int) -> tuple[int, ...]:
    """Hashes of the full blocks of a prompt's text, each over all before it: 64 bits of xxh3."""
    size = block_tokens * BYTES_PER_TOKEN
    text = memoryview(prompt)
    hashes: list[int] = []
    last = 0
    for end in range(size, len(prompt) + 1, size):
        last = xxhash.xxh3_64_intdigest(text[end - size : end], seed=last)
        hashes.append(last)
    return tuple(hashes)
