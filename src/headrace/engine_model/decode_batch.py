"""The decoding sequences of an engine, in sums that make many steps one calculation.

Every step gives each of them one token, so all that a step depends on follows from a few
aggregates, and n steps in which nobody joins or leaves need no loop:

    seconds of n steps = n * first + per_kv_token * batch * n * (n - 1) / 2
        with first = per_step + per_sequence * batch + per_kv_token * context

A sequence needs a new KV block in the step in which its KV tokens are a multiple of the block, and
again every `block_tokens` steps. With sequences counted by that step, modulo the block (`_due`),
the blocks needed in n steps are n // block_tokens times the batch plus the sum of a stretch of
`_due`.
"""

from __future__ import annotations

from heapq import heappop, heappush

from headrace.engine_model.sequence import Sequence


class DecodeBatch:
    """Who decodes, and in which step each of them ends.

    `step` numbers the engine's steps. `context_tokens` are the KV tokens that the next step reads.
    """

    __slots__ = ("_due", "_ends", "block_tokens", "context_tokens", "count", "step")

    def __init__(self, block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.step = 0
        self.count = 0
        self.context_tokens = 0
        self._due = [0] * block_tokens
        self._ends: list[tuple[int, int, Sequence]] = []

    def join(self, sequence: Sequence) -> None:
        """Let a sequence decode from the next step on; it has tokens to go."""
        sequence.decoding = True
        sequence.joined_step = self.step
        self.count += 1
        self.context_tokens += sequence.prefill_tokens
        self._due[self._due_step(sequence)] += 1
        remaining = sequence.job.output_tokens - sequence.emitted_tokens
        heappush(self._ends, (self.step + remaining, sequence.serial, sequence))

    def leave(self, sequence: Sequence) -> None:
        """Take a sequence out, its emitted and held tokens brought up to date."""
        self.count -= 1
        sequence.held_tokens = self.kv_tokens(sequence)
        self.context_tokens -= sequence.held_tokens
        self._due[self._due_step(sequence)] -= 1
        sequence.emitted_tokens = self.emitted_tokens(sequence)
        sequence.decoding = False

    def advance(self, steps: int) -> None:
        """Let `steps` steps pass."""
        self.step += steps
        self.context_tokens += self.count * steps

    def ended(self) -> list[Sequence]:
        """Take out and return those that got their last token, in order of admission."""
        ended: list[Sequence] = []
        while self._ends and self._ends[0][0] <= self.step:
            _, serial, sequence = heappop(self._ends)
            if sequence.decoding and sequence.serial == serial:
                self.leave(sequence)
                ended.append(sequence)
        return ended

    def steps_to_end(self) -> int:
        """Steps until the next of them gets its last token; there must be one."""
        while True:
            end, serial, sequence = self._ends[0]
            if sequence.decoding and sequence.serial == serial:
                return end - self.step
            heappop(self._ends)

    def kv_tokens(self, sequence: Sequence) -> int:
        """Tokens of a decoding sequence in the KV cache."""
        return sequence.prefill_tokens + self.step - sequence.joined_step

    def emitted_tokens(self, sequence: Sequence) -> int:
        """Output tokens so far of a decoding sequence."""
        return sequence.emitted_tokens + self.step - sequence.joined_step

    def needs_block(self, sequence: Sequence) -> bool:
        """Whether a decoding sequence needs a new KV block in the next step."""
        return self.kv_tokens(sequence) % self.block_tokens == 0

    def blocks_needed(self, steps: int) -> int:
        """New KV blocks that the next `steps` steps need."""
        due, block_tokens = self._due, self.block_tokens
        first = self.step % block_tokens
        if steps == 1:
            return due[first]
        rounds, rest = divmod(steps, block_tokens)
        end = first + rest
        needed = rounds * self.count + sum(due[first:end])
        return needed + sum(due[: end - block_tokens]) if end > block_tokens else needed

    def steps_within(self, blocks: int) -> int:
        """The most steps that need no more than `blocks` new KV blocks; somebody must decode."""
        rounds, rest = divmod(blocks, self.count)
        steps = rounds * self.block_tokens
        while True:
            rest -= self._due[(self.step + steps) % self.block_tokens]
            if rest < 0:
                return steps
            steps += 1

    def _due_step(self, sequence: Sequence) -> int:
        return (sequence.joined_step - sequence.prefill_tokens) % self.block_tokens
