"""A trace: which requests arrive when, how long they are and which prefixes they share.

Prefix sharing is told by block ids. The prompt is cut into runs of `block_tokens` tokens from its
start; each full run has an id that stands for everything up to its end. Two prompts with the same
id at a position are equal up to there, so a KV cache that holds the block holds the whole prefix.
The rest behind the last full run has no id: no engine caches less than a full block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOONCAKE_BLOCK_TOKENS = 512
"""Tokens behind one id in Mooncake's traces; what traces without ids are given too."""


class TraceRequest(NamedTuple):
    """One request of a trace.

    `arrival_s` counts from the trace's start. `blocks` are the ids of the prompt's full blocks, at
    most `input_tokens // block_tokens` of them. `session` names the conversation where the trace
    knows it, else it is empty.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    session: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival, the first at 0 s or later.

    `notes` are plain sentences on what was read otherwise than it stands in the file; whoever shows
    results should show them too.
    """

    name: str
    block_tokens: int
    requests: Sequence[TraceRequest]
    notes: tuple[str, ...] = ()


class TraceError(ValueError):
    """A trace that cannot be read: file, line, what was expected there and what was found."""

    def __init__(self, name: str, line: int | None, problem: str) -> None:
        where = name if line is None else f"{name}:{line}"
        super().__init__(f"{where}: {problem}")
        self.name = name
        self.line = line


def not_utf8(name: str, lines_read: int, error: UnicodeDecodeError) -> TraceError:
    """What to raise where text is not UTF-8 and so many lines before were read.

    A file is decoded some thousand bytes at a time, all of them before the first of their lines is
    read, so the lines in front of the fault are counted in what was to be decoded.
    """
    before = error.object[: error.start]
    line = lines_read + 1 + max(before.count(b"\n"), before.count(b"\r"))
    found = error.object[error.start : error.start + 1]
    return TraceError(name, line, f"expected UTF-8 text, found {found!r}")
