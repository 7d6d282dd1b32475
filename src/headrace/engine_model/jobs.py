"""What is asked of an engine and what comes of it."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Job:
    """One request: sizes in tokens and the identity of its prefix.

    `id` is unique among the jobs that an engine has at a time. `blocks` are the ids of the full
    blocks of `block_tokens` tokens at the start of the prompt: an equal id means an equal prefix up
    to and including that block. `output_tokens` counts the first token, which comes at the end of
    the step that finishes the prefill.

    Raises:
        ValueError: a length is less than 1, or there are more blocks than the prompt has.
    """

    __slots__ = ("block_tokens", "blocks", "id", "output_tokens", "prompt_tokens")

    def __init__(
        self,
        id: int,  # noqa: A002 - it is the job's name everywhere
        prompt_tokens: int,
        output_tokens: int,
        blocks: tuple[int, ...] = (),
        block_tokens: int = 512,
    ) -> None:
        if prompt_tokens < 1 or output_tokens < 1 or block_tokens < 1:
            raise ValueError(
                f"job {id}: prompt_tokens {prompt_tokens}, output_tokens {output_tokens}, "
                f"block_tokens {block_tokens}; give 1 or more of each"
            )
        if len(blocks) * block_tokens > prompt_tokens:
            raise ValueError(
                f"job {id}: {len(blocks)} blocks of {block_tokens} tokens in a prompt of "
                f"{prompt_tokens}; give the ids of its full blocks only"
            )
        self.id = id
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.blocks = blocks
        self.block_tokens = block_tokens

    def __repr__(self) -> str:
        return f"Job({self.id}, {self.prompt_tokens} + {self.output_tokens} tokens)"


class FirstToken(NamedTuple):
    """A prefill is done; `cached_tokens` of its prompt were in the prefix cache, and until
    `admitted_s` it waited.
    """

    job: Job
    at_s: float
    cached_tokens: int
    admitted_s: float


class Finished(NamedTuple):
    """The last token of a job came."""

    job: Job
    at_s: float


class BlocksStored(NamedTuple):
    """Prefix blocks `first` to `end` (exclusive) of the job's `blocks` can be hit from now on."""

    job: Job
    at_s: float
    first: int
    end: int

    @property
    def blocks(self) -> tuple[int, ...]:
        """Their ids, in the order of the prompt."""
        return self.job.blocks[self.first : self.end]


class BlocksRemoved(NamedTuple):
    """Prefix blocks that left the cache, in the order in which they did."""

    blocks: tuple[int, ...]
    at_s: float


Happening: TypeAlias = FirstToken | Finished | BlocksStored | BlocksRemoved
