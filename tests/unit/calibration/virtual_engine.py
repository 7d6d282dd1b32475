"""An engine in virtual time behind the calibration's port: no sockets, no waiting."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count, islice
from typing import TypeAlias

from headrace.calibration.replica import Replica
from headrace.calibration.stream import StreamError, TimedAnswer
from headrace.core.model import Usage
from headrace.emulator.modelled import block_hashes
from headrace.emulator.prompt import BYTES_PER_TOKEN
from headrace.engine_model import EngineModel, EngineSpec, Finished, FirstToken, Job
from headrace.engines.registry import dialect

Come: TypeAlias = Callable[[float, Job], list[tuple[float, Job]]]


class VirtualEngine:
    """Answers as the model has it; whoever asks sees each token late by a tick or so.

    All tokens of a step are late together, by anything up to `tick_s`, and each stream by
    `stream_s` more than the one before it, as the engine writes them one after the other. In a
    share `spikes` of the steps something else had the processor, for `spike_s` in the mean.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        overhead_s: float = 0.0,
        tick_s: float = 0.0,
        stream_s: float = 0.0,
        spikes: float = 0.0,
        spike_s: float = 0.0,
        caches: bool = True,
        seed: int = 0,
    ) -> None:
        self.now = 0.0
        self.asked = 0
        self._model = EngineModel(spec)
        self._spec = spec
        self._overhead_s = overhead_s
        self._tick_s = tick_s
        self._stream_s = stream_s
        self._spikes, self._spike_s = spikes, spike_s
        self._caches = caches
        self.rng = random.Random(seed)
        self._numbers = count()

    def clock(self) -> float:
        return self.now

    def close(self) -> None:
        pass

    async def settle(self, prompt: str) -> TimedAnswer:
        return await self.ask(prompt, 8)

    async def ask(self, prompt: str, output_tokens: int) -> TimedAnswer:
        (answer,) = await self.together([prompt], output_tokens)
        return answer

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        asked_s = self.now
        self.asked += len(prompts)
        jobs = [self._job(prompt, output_tokens) for prompt in prompts]
        begin_s = asked_s + self._overhead_s
        for job in jobs:
            self._model.submit(job, begin_s)
        times, cached = self._played(jobs, begin_s)
        return [
            TimedAnswer(
                asked_s,
                tuple(times[job.id]),
                Usage(job.prompt_tokens, output_tokens, cached[job.id]),
            )
            for job in jobs
        ]

    def _job(self, prompt: str, output_tokens: int) -> Job:
        text, size = prompt.encode(), self._spec.kv_block_tokens
        tokens = max(1, len(text) // BYTES_PER_TOKEN)
        if not self._spec.holds(tokens + output_tokens):
            raise StreamError(f"HTTP 400: {tokens} tokens are too many", 400)
        blocks = block_hashes(text, size) if self._caches else ()
        return Job(next(self._numbers), tokens, output_tokens, blocks, size)

    async def beside(
        self, first: str, first_tokens: int, prompts: list[str], output_tokens: int, at_once: int
    ) -> tuple[TimedAnswer, list[TimedAnswer]]:
        """Each of the others is asked when one before it was answered, and that was seen."""
        self.asked += 1 + len(prompts)
        clock = self._job(first, first_tokens)
        others = [self._job(prompt, output_tokens) for prompt in prompts]
        asked_s = {clock.id: self.now}
        waiting = iter(others)

        def come(seen_s: float, over: Job) -> list[tuple[float, Job]]:
            more = list(islice(waiting, at_once if over is clock else 1))
            asked_s.update({job.id: seen_s for job in more})
            return [(seen_s + self._overhead_s, job) for job in more]

        self._model.submit(clock, self.now + self._overhead_s)
        times, cached = self._played([clock, *others], self.now + self._overhead_s, come)
        answers = [
            TimedAnswer(
                asked_s[job.id],
                tuple(times[job.id]),
                Usage(job.prompt_tokens, job.output_tokens, cached[job.id]),
            )
            for job in (clock, *others)
        ]
        return answers[0], answers[1:]

    def _played(
        self, jobs: list[Job], now: float, come: Come = lambda *_: []
    ) -> tuple[dict[int, list[float]], dict[int, int]]:
        """Until all are over. `come` says who comes when, once a job is: the first one at once."""
        model = self._model
        times: dict[int, list[float]] = {job.id: [] for job in jobs}
        cached: dict[int, int] = {}
        decoding: dict[int, Job] = {}
        left = len(jobs)
        coming: list[tuple[float, Job]] = []
        while left:
            now = self._next_step_s(now, coming)
            late_s = self._late_s()
            for happening in model.advance(now):
                if isinstance(happening, FirstToken):
                    cached[happening.job.id] = happening.cached_tokens
                    decoding[happening.job.id] = happening.job
                    times[happening.job.id].append(now + late_s)
                elif isinstance(happening, Finished):
                    left -= 1
                    del decoding[happening.job.id]
                    if len(times[happening.job.id]) < happening.job.output_tokens:
                        times[happening.job.id].append(now + late_s)
                # The first one stays, and the others follow each other beside it.
                if isinstance(happening, FirstToken | Finished):
                    begun = isinstance(happening, FirstToken)
                    if begun is (happening.job is jobs[0]):
                        coming += come(now + late_s, happening.job)
            for place, job in enumerate(decoding.values()):
                if model.decoded_tokens(job, now) > len(times[job.id]):
                    times[job.id].append(now + late_s + place * self._stream_s)
        self.now = now
        return times, cached

    def _next_step_s(self, now: float, coming: list[tuple[float, Job]]) -> float:
        """The end of the next step, which those who come before it may take part in."""
        coming.sort(key=lambda each: each[0])
        step_s = self._model.next_step_s(now)
        while coming and coming[0][0] <= step_s:
            at_s, job = coming.pop(0)
            now = max(at_s, now)
            self._model.submit(job, now)
            step_s = self._model.next_step_s(now)
        return step_s

    def _late_s(self) -> float:
        late_s = self.rng.uniform(0.0, self._tick_s)
        if self._spikes and self.rng.random() < self._spikes:
            late_s += self.rng.expovariate(1.0 / self._spike_s)
        return late_s


def replica_of(spec: EngineSpec, *, max_context_tokens: int, tells_sequences: bool) -> Replica:
    """What such an engine would tell of itself; it has no metrics."""
    return Replica(
        "http://virtual",
        "m",
        dialect("openai"),
        max_context_tokens=max_context_tokens,
        kv_capacity_tokens=spec.kv_capacity_tokens,
        max_sequences=spec.max_sequences if tells_sequences else None,
    )
