"""What an engine does with its jobs, in virtual time: continuous batching as in vLLM V1.

Work is done in steps. A step has a token budget: each decoding sequence takes one, the rest goes to
the prompt whose prefill was begun (in chunks, if it is longer than a budget), then to waiting ones,
first come first served. A waiting prompt is admitted when a sequence may be added and the KV cache
has room for all of it that is not cached. A decoding sequence that needs a KV block when there is
none preempts the latest admitted one, which then waits first in line to be prefilled anew.

    step_s = per_step + per_prefill_token * tokens prefilled + per_attended_token * pairs attended
           + per_sequence * decoding sequences + per_kv_token * KV tokens of these

Steps that only decode, with nothing to admit, change nothing but sums until a sequence ends or the
KV cache is full, so they are taken in one jump (`decode_batch`): cost grows with events, not with
tokens. What arrives or is cancelled in the middle takes part from the next step on.

Two simplifications, both small beside what a linear step time leaves out: the room for a whole
prompt is taken when it is admitted, not chunk by chunk (vLLM checks for all of it and takes it by
the chunk), and decoded tokens cannot be hit, since a trace does not tell who will continue them.
"""

from __future__ import annotations

from collections import deque
from math import inf, sqrt

from headrace.core.latency import attended_pairs
from headrace.engine_model.decode_batch import DecodeBatch
from headrace.engine_model.jobs import (
    BlocksRemoved,
    BlocksStored,
    Finished,
    FirstToken,
    Happening,
    Job,
)
from headrace.engine_model.kv_cache import KvCache
from headrace.engine_model.sequence import WAITING, Sequence
from headrace.engine_model.spec import EngineSpec


class EngineModel:
    """One engine. Times are seconds on the caller's clock and never go back.

    With `records_kv`, `advance` also returns what the prefix cache stored and removed.
    Totals since the start: `preemptions`; `query_tokens` and `hit_tokens` of prompts looked up in
    the prefix cache at their first admission; `prefilled_tokens` computed; `steps`.

    Raises:
        ValueError: time goes back, or a job's prefix blocks are not whole KV blocks.
    """

    __slots__ = (
        "_allocated_step",
        "_batch",
        "_budget",
        "_cancelled",
        "_chunks",
        "_end_s",
        "_first_step_s",
        "_growth_s",
        "_happened",
        "_kv",
        "_now",
        "_pairs",
        "_partial",
        "_preempted",
        "_prefill_tokens",
        "_records_kv",
        "_running",
        "_sequences",
        "_serial",
        "_start_s",
        "_steps",
        "_stored",
        "_waiting",
        "hit_tokens",
        "preemptions",
        "prefilled_tokens",
        "query_tokens",
        "spec",
    )

    def __init__(self, spec: EngineSpec, *, records_kv: bool = False) -> None:
        self.spec = spec
        self.preemptions = 0
        self.query_tokens = 0
        self.hit_tokens = 0
        self.prefilled_tokens = 0
        self._records_kv = records_kv
        self._now = -inf
        self._kv = KvCache(spec.kv_capacity_tokens // spec.kv_block_tokens, records=records_kv)
        self._batch = DecodeBatch(spec.kv_block_tokens)
        self._sequences: dict[int, Sequence] = {}  # by job id
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}  # by serial, so in order of admission
        self._serial = 0
        self._cancelled: list[Sequence] = []
        self._happened: list[Happening] = []
        # The step in work, or a jump of several.
        self._steps = 0  # 0: idle
        self._start_s = 0.0
        self._end_s = inf
        self._first_step_s = 0.0
        self._growth_s = 0.0  # by which each step of a jump is longer than the one before
        self._allocated_step = -1  # the last step that decoding sequences have their blocks for
        self._preempted = False
        self._chunks: list[Sequence] = []  # whose prefill takes part, in order of admission
        self._partial: Sequence | None = None  # whose prefill goes on in the next step
        self._budget = 0
        self._prefill_tokens = 0
        self._pairs = 0.0
        self._stored: list[tuple[Sequence, int, int]] = []

    # ---- what a caller does

    def submit(self, job: Job, now: float) -> None:
        """Queue a job; it takes part from the next step that begins at `now` or later.

        Raises:
            ValueError: it can never fit, its id is taken, or its blocks are no whole KV blocks.
        """
        self._check(job)
        self._run(now)
        sequence = Sequence(job, job.block_tokens // self.spec.kv_block_tokens)
        self._sequences[job.id] = sequence
        self._waiting.append(sequence)
        if not self._steps:
            self._start_s = now
            self._plan()
        elif len(self._waiting) > 1:
            return  # whoever waits ahead could not start either
        elif self._start_s == now:
            self._plan_again()
        elif not self._chunks and len(self._running) < self.spec.max_sequences:
            steps = self._steps_done(now)
            self._end_jump(steps if self._time_after(steps) == now else steps + 1)

    def cancel(self, job: Job, now: float) -> None:
        """Forget a job: at once if it waits, at the end of the step in work if it runs.

        No happening of it comes after this. A job that is not here (any more) is ignored.
        """
        self._run(now)
        sequence = self._sequences.pop(job.id, None)
        if sequence is None:
            return
        if sequence.serial == WAITING:
            first = self._waiting[0] is sequence
            self._waiting.remove(sequence)
            if not first:
                return
        else:
            sequence.cancelled = True
            self._cancelled.append(sequence)
        if not self._chunks:
            self._end_jump(self._steps_done(now) + 1)

    def advance(self, now: float) -> list[Happening]:
        """Everything that happened up to and including `now` and was not returned before.

        In order of time; at the same time in order of admission.
        """
        self._run(now)
        happened = self._happened
        self._happened = []
        return happened

    def next_event_s(self) -> float:
        """When to call `advance` next, if nobody submits; infinite when idle.

        No first token or end comes earlier. It is the end of the step or jump in work, so a chunk
        of a long prefill may end without a happening.
        """
        return self._end_s

    def next_step_s(self, now: float) -> float:
        """The end of the single step in work at `now`, at which tokens come; infinite when idle."""
        if not self._steps or self._chunks:
            return self._end_s
        return self._time_after(self._steps_done(now) + 1)

    def decoded_tokens(self, job: Job, now: float) -> int:
        """Output tokens of a job that have come by `now`, which is not before the last call's."""
        sequence = self._sequences.get(job.id)
        if sequence is None:
            return 0
        if not sequence.decoding:
            return sequence.emitted_tokens
        return self._batch.emitted_tokens(sequence) + self._steps_done(now)

    # ---- gauges, as of the last call with a time

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that are prefilled or decode."""
        return len(self._running)

    @property
    def kv_usage_ratio(self) -> float:
        """Share of the KV blocks that sequences hold; blocks cached for nobody count as free."""
        kv = self._kv
        used = kv.capacity_blocks - kv.available_blocks
        done = self._steps_done(self._now)
        if done and self._batch.count:
            used += self._batch.blocks_needed(done + 1) - self._batch.blocks_needed(1)
        return used / kv.capacity_blocks

    @property
    def steps(self) -> int:
        """Steps done by the end of the last one that something happened in."""
        return self._batch.step

    @property
    def cached_blocks(self) -> list[int]:
        """Ids of the prefix blocks that can be hit."""
        return self._kv.cached

    # ---- time

    def _run(self, now: float) -> None:
        if now < self._now:
            raise ValueError(f"time goes back from {self._now} to {now}; call in order of time")
        self._now = now
        while self._steps and self._end_s <= now:
            self._complete()

    def _time_after(self, steps: int) -> float:
        """When so many steps of the jump are done."""
        return self._start_s + steps * (self._first_step_s + self._growth_s * (steps - 1) / 2)

    def _steps_done(self, now: float) -> int:
        """Steps of the jump in work that end by `now`, fewer than all of them."""
        if self._chunks or self._steps < 2 or now <= self._start_s:
            return 0
        passed = now - self._start_s
        if self._growth_s > 0:
            half = self._first_step_s - self._growth_s / 2
            root = sqrt(half * half + 2 * self._growth_s * passed)
            steps = int(2 * passed / (half + root))
        else:
            steps = int(passed / self._first_step_s)
        while steps > 0 and self._time_after(steps) > now:
            steps -= 1
        while self._time_after(steps + 1) <= now:
            steps += 1
        return min(steps, self._steps - 1)

    def _end_jump(self, steps: int) -> None:
        """Let the jump end after so many steps, if not before."""
        if steps < self._steps:
            self._steps = steps
            self._end_s = self._time_after(steps)

    # ---- the next step

    def _plan(self) -> None:
        """Decide what the step at `_start_s` does, or the jump that begins with it."""
        self._chunks = []
        self._preempted = False
        self._prefill_tokens = 0
        self._pairs = 0.0
        batch = self._batch
        if batch.count and self._allocated_step != batch.step:
            self._allocate_decoding()
        self._budget = self.spec.max_batched_tokens - batch.count
        if self._partial is not None:
            sequence, self._partial = self._partial, None
            self._prefill(sequence)
        if self._waiting and not self._preempted:
            self._admit()
        self._time_plan()

    def _plan_again(self) -> None:
        """The step that begins now began without a job that came just now: let it join."""
        if self._chunks:
            self._admit()
            self._time_plan()
        else:
            self._plan()

    def _time_plan(self) -> None:
        latency, batch = self.spec.latency, self._batch
        step_s = latency.step_s(batch.count, batch.context_tokens)
        if self._chunks:
            self._steps = 1
            step_s += latency.per_prefill_token_s * self._prefill_tokens
            self._end_s = self._start_s + step_s + latency.per_attended_token_s * self._pairs
        elif batch.count:
            self._steps = self._jump_steps()
            self._first_step_s = step_s
            self._growth_s = latency.per_kv_token_s * batch.count
            self._end_s = self._time_after(self._steps)
        else:
            self._steps = 0
            self._end_s = inf
        if self._kv.removed:
            self._happened.append(BlocksRemoved(tuple(self._kv.removed), self._start_s))
            self._kv.removed.clear()

    def _jump_steps(self) -> int:
        """Steps until a sequence ends or KV blocks run out; with records, until one is evicted."""
        if self._preempted:
            return 1
        batch, kv = self._batch, self._kv
        steps = batch.steps_to_end()
        room = kv.free_blocks if self._records_kv else kv.available_blocks
        if -(-steps // batch.block_tokens) * batch.count <= room:
            return steps  # each of them needs no more
        first = batch.blocks_needed(1)  # taken already
        if batch.blocks_needed(steps) - first > room:
            steps = batch.steps_within(room + first)
        return steps

    def _allocate_decoding(self) -> None:
        """Give decoding sequences the KV blocks of the next step, preempting where there are none.

        The earlier admitted take what there is; then the latest leave until the others have theirs.
        """
        batch, kv = self._batch, self._kv
        self._allocated_step = batch.step
        needed = batch.blocks_needed(1)
        while needed > kv.available_blocks:
            there = kv.available_blocks
            kv.take(there)
            needed -= there
            victim = self._running[next(reversed(self._running))]
            if victim.decoding and batch.needs_block(victim):
                needed -= 1
            self._preempt(victim)
        kv.take(needed)

    def _preempt(self, sequence: Sequence) -> None:
        self._remove(sequence)
        if sequence is self._partial:
            self._partial = None
        sequence.serial = WAITING
        sequence.prefill_tokens = sequence.job.prompt_tokens + sequence.emitted_tokens
        self._waiting.appendleft(sequence)
        self._preempted = True
        self.preemptions += 1

    def _admit(self) -> None:
        """Begin the prefill of waiting prompts while budget, sequences and KV blocks allow."""
        kv, block_tokens = self._kv, self.spec.kv_block_tokens
        while self._waiting and self._budget and len(self._running) < self.spec.max_sequences:
            sequence = self._waiting[0]
            job, size, tokens = sequence.job, sequence.block_size, sequence.prefill_tokens
            hits, unpinned = kv.hits(job.blocks)
            private = -(-tokens // block_tokens) - hits * size
            if private + unpinned * size > kv.available_blocks:
                return
            self._waiting.popleft()
            kv.pin(job.blocks[:hits], size)
            kv.take(private)
            # What is all cached still needs its last token's logits: vLLM computes one KV block.
            cached = min(hits * job.block_tokens, (tokens - 1) // block_tokens * block_tokens)
            sequence.computed_tokens = cached
            sequence.pinned = hits
            sequence.serial = self._serial
            self._running[self._serial] = sequence
            self._serial += 1
            sequence.held_tokens = tokens
            if sequence.cached_tokens < 0:
                sequence.cached_tokens = cached
                sequence.admitted_s = self._start_s
                self.query_tokens += tokens
                self.hit_tokens += cached
            self._prefill(sequence)

    def _prefill(self, sequence: Sequence) -> None:
        """Put as much of a prompt into the step as the budget allows.

        Its prefix blocks can be hit from here on, by prompts in the same step too, as in vLLM,
        where attention reads what the same forward pass has written.
        """
        computed = sequence.computed_tokens
        tokens = min(sequence.prefill_tokens - computed, self._budget)
        self._chunks.append(sequence)
        self._budget -= tokens
        self._prefill_tokens += tokens
        self._pairs += attended_pairs(tokens, computed)
        sequence.computed_tokens = computed = computed + tokens
        if computed < sequence.prefill_tokens:
            self._partial = sequence
        blocks, pinned = sequence.job.blocks, sequence.pinned
        full = min(computed // sequence.job.block_tokens, len(blocks))
        if full > pinned:
            self._kv.share(blocks[pinned:full], sequence.block_size)
            sequence.pinned = full
            if self._records_kv:
                self._stored.append((sequence, pinned, full))

    # ---- its end

    def _complete(self) -> None:
        """End the step or jump in work and plan what follows."""
        batch, steps, at_s = self._batch, self._steps, self._end_s
        if steps > 1:
            self._kv.take(batch.blocks_needed(steps) - batch.blocks_needed(1))
            self._allocated_step = batch.step + steps - 1
        batch.advance(steps)
        if self._stored:
            self._report_stored(at_s)
        for sequence in batch.ended():
            self._finish(sequence, at_s)
        self.prefilled_tokens += self._prefill_tokens
        for sequence in self._chunks:
            if sequence is not self._partial:
                self._end_prefill(sequence, at_s)
        if self._cancelled:
            for sequence in self._cancelled:
                if sequence.serial != WAITING:
                    self._remove(sequence)
                    if sequence is self._partial:
                        self._partial = None
            self._cancelled.clear()
        self._start_s = at_s
        self._plan()

    def _end_prefill(self, sequence: Sequence, at_s: float) -> None:
        """The first token of a sequence, or after a preemption its next one."""
        if not sequence.emitted_tokens and not sequence.cancelled:
            first = FirstToken(sequence.job, at_s, sequence.cached_tokens, sequence.admitted_s)
            self._happened.append(first)
        sequence.emitted_tokens += 1
        if sequence.emitted_tokens == sequence.job.output_tokens:
            self._finish(sequence, at_s)
        else:
            self._batch.join(sequence)

    def _finish(self, sequence: Sequence, at_s: float) -> None:
        self._remove(sequence)
        sequence.serial = WAITING
        if not sequence.cancelled:
            del self._sequences[sequence.job.id]
            self._happened.append(Finished(sequence.job, at_s))

    def _remove(self, sequence: Sequence) -> None:
        """Stop running a sequence and give back all it holds."""
        if sequence.decoding:
            self._batch.leave(sequence)
        del self._running[sequence.serial]
        job = sequence.job
        tokens = sequence.held_tokens
        blocks = -(-tokens // self.spec.kv_block_tokens) - sequence.pinned * sequence.block_size
        self._kv.release(job.blocks[: sequence.pinned], sequence.block_size, blocks)
        sequence.pinned = 0

    def _report_stored(self, at_s: float) -> None:
        for sequence, first, end in self._stored:
            self._happened.append(BlocksStored(sequence.job, at_s, first, end))
        self._stored.clear()

    def _check(self, job: Job) -> None:
        block_tokens = self.spec.kv_block_tokens
        if job.blocks and job.block_tokens % block_tokens:
            raise ValueError(
                f"job {job.id}: block_tokens is {job.block_tokens}; "
                f"give a multiple of the engine's KV block of {block_tokens} tokens"
            )
        if job.id in self._sequences:
            raise ValueError(f"job {job.id} is here already; give each job an id of its own")
        needed = -(-(job.prompt_tokens + job.output_tokens) // block_tokens)
        if needed > self._kv.capacity_blocks:
            raise ValueError(
                f"job {job.id}: {job.prompt_tokens} prompt + {job.output_tokens} output tokens "
                f"can never fit in a KV cache of {self._kv.capacity_blocks * block_tokens} tokens"
            )
