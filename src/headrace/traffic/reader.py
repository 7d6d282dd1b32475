"""Reads a trace of any known format; the format is recognised by its first line.

| first line | format |
|---|---|
| a JSON object with `hash_ids` and without `block_tokens` | Mooncake, timestamp in ms |
| any other JSON object | simple, timestamp in seconds |
| text with commas | Azure's CSV, by its columns |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from headrace.traffic.azure import read_azure
from headrace.traffic.json_record import json_record, shown
from headrace.traffic.mooncake import read_mooncake
from headrace.traffic.simple import read_simple
from headrace.traffic.trace import Trace, TraceError, TraceRequest, not_utf8

FORMATS = "a JSON object with timestamp, input_length, output_length, or Azure's CSV columns"


def read_trace(name: str, lines: Iterable[str], *, seed: int) -> Trace:
    """Read a trace from the lines of a file.

    Args:
        name: what errors and results call it: the file's path.
        lines: the text, with or without line ends; empty lines count but say nothing.
        seed: spreads requests within the steps of coarse timestamps (Mooncake's 3 s).

    Raises:
        TraceError: one clear line with file, line number, what was expected and what was found.
    """
    numbered = _numbered(name, lines)
    first = next(numbered, None)
    if first is None:
        raise TraceError(name, None, f"expected {FORMATS}; the file is empty")
    line, text = first
    everything = chain((first,), numbered)
    if text.lstrip().startswith(("{", "[")):
        record = json_record(name, line, text)
        if record.hash_ids is not None and record.block_tokens is None:
            trace = read_mooncake(name, everything, seed)
        else:
            trace = read_simple(name, everything)
        return chained(trace)
    if "," in text:
        return read_azure(name, everything)
    raise TraceError(name, line, f"expected {FORMATS}, found {shown(text.strip())}")


def chained(trace: Trace) -> Trace:
    """The trace with ids that stand for whole prefixes.

    Mooncake's ids do so as they are. Where one id follows different ones in different prompts, ids
    stand for the content of single blocks: such a trace gets new ids, one for each distinct prefix.
    """
    if _is_chained(trace.requests):
        return trace
    ids: dict[tuple[int, int], int] = {}
    requests: list[TraceRequest] = []
    for request in trace.requests:
        blocks: list[int] = []
        prefix = -1
        for block in request.blocks:
            prefix = ids.setdefault((prefix, block), len(ids))
            blocks.append(prefix)
        requests.append(request._replace(blocks=tuple(blocks)))
    note = "the same hash_ids follow different ones, so ids were made anew from whole prefixes"
    return Trace(trace.name, trace.block_tokens, requests, (*trace.notes, note))


def _is_chained(requests: Sequence[TraceRequest]) -> bool:
    """Whether each id always follows the same one."""
    before: dict[int, int] = {}
    for request in requests:
        previous = -1
        for block in request.blocks:
            if before.setdefault(block, previous) != previous:
                return False
            previous = block
    return True


def _numbered(name: str, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines that say something with their numbers from 1, a byte order mark removed."""
    number = 0
    try:
        for number, text in enumerate(lines, 1):
            if number == 1:
                text = text.removeprefix("\ufeff")  # noqa: PLW2901 - one line of many
            if text.strip():
                yield number, text
    except UnicodeDecodeError as error:
        raise not_utf8(name, number, error) from None
