"""What an engine keeps of a job while it has it."""

from __future__ import annotations

from headrace.engine_model.jobs import Job

WAITING = -1
"""The `serial` of a sequence that does not run."""


class Sequence:
    """A job in the engine.

    `serial` numbers admissions, `WAITING` while it waits; the latest admitted is preempted first.
    `prefill_tokens` are to be computed before it decodes: its prompt, after a preemption also what
    it had decoded. `computed_tokens` of them are, `pinned` counts the job's prefix blocks it holds.
    `emitted_tokens` are the output tokens so far, while it decodes as of `joined_step`.
    """

    __slots__ = (
        "admitted_s",
        "block_size",
        "cached_tokens",
        "cancelled",
        "computed_tokens",
        "decoding",
        "emitted_tokens",
        "held_tokens",
        "job",
        "joined_step",
        "pinned",
        "prefill_tokens",
        "serial",
    )

    def __init__(self, job: Job, block_size: int) -> None:
        self.job = job
        self.block_size = block_size
        """KV blocks in one of the job's prefix blocks."""
        self.serial = WAITING
        self.prefill_tokens = job.prompt_tokens
        self.computed_tokens = 0
        self.held_tokens = 0
        self.cached_tokens = -1
        """Hits at its first admission; -1 before."""
        self.admitted_s = 0.0
        """When that was."""
        self.pinned = 0
        self.emitted_tokens = 0
        self.joined_step = 0
        self.decoding = False
        self.cancelled = False
