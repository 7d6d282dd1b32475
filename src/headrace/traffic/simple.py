"""The simple trace format: JSON lines with seconds, for traces written by hand or by a script.

    {"timestamp": 0.25, "input_length": 900, "output_length": 120}
    {"timestamp": 1.5, "input_length": 1300, "output_length": 80, "session": "a"}
    {"timestamp": 2.0, "input_length": 100, "output_length": 9, "block_tokens": 16, "hash_ids": […]}

`timestamp` is in seconds from any zero. `hash_ids` with `block_tokens` (the same on every line that
has ids) tell shared prefixes as in Mooncake's format. What has `hash_ids` without `block_tokens` is
Mooncake's format, and there `timestamp` is in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.traffic.intake import FieldNames, Intake
from headrace.traffic.json_record import JsonRecord, json_record
from headrace.traffic.mooncake import full_blocks
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, Trace, TraceError, TraceRequest

FIELDS = FieldNames("timestamp", "input_length", "output_length")
MAX_BLOCK_TOKENS = 1 << 16
"""Engines use 16 to 64, tiers behind them up to some thousands; a larger one is a mistake."""


def read_simple(name: str, lines: Iterable[tuple[int, str]]) -> Trace:
    """Read numbered lines in the simple format.

    Raises:
        TraceError: a line is not as described above.
    """
    intake = Intake(name, FIELDS)
    block_tokens: int | None = None
    for line, text in lines:
        record = json_record(name, line, text)
        blocks: tuple[int, ...] = ()
        if record.hash_ids is not None:
            block_tokens = _block_tokens(name, line, record, block_tokens)
            blocks = full_blocks(name, line, record, block_tokens)
        request = TraceRequest(
            record.timestamp,
            record.input_length,
            record.output_length,
            blocks,
            record.session_name(),
        )
        intake.add(line, request)
    return intake.trace(MOONCAKE_BLOCK_TOKENS if block_tokens is None else block_tokens)


def _block_tokens(name: str, line: int, record: JsonRecord, before: int | None) -> int:
    """The size of the record's blocks, which must be that of the lines before."""
    here = record.block_tokens
    if here is None:
        problem = (
            "expected block_tokens beside hash_ids (the first line is of the simple format,"
            " timestamp in seconds)"
        )
        raise TraceError(name, line, problem)
    if not 1 <= here <= MAX_BLOCK_TOKENS:
        raise TraceError(
            name, line, f"expected block_tokens from 1 to {MAX_BLOCK_TOKENS}, found {here}"
        )
    if before is not None and here != before:
        raise TraceError(name, line, f"expected block_tokens {before} as before, found {here}")
    return here
