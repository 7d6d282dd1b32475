"""The format of Azure's LLM inference traces: CSV with lengths, without prefixes.

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:17:03.9799600,4808,10

Published with Patel et al., "Splitwise", ISCA '24 (2023) and Stojkovic et al., "DynamoLLM", HPCA
'25 (2024), in Azure/AzurePublicDataset. Digits below the microsecond are dropped.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import datetime

from headrace.traffic.intake import FieldNames, Intake
from headrace.traffic.json_record import shown
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, Trace, TraceError, TraceRequest

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def read_azure(name: str, lines: Iterable[tuple[int, str]]) -> Trace:
    """Read numbered lines, the columns' names first.

    Raises:
        TraceError: other columns, or a line that does not fit them.
    """
    order: tuple[int, ...] = ()
    width = 0
    first: datetime | None = None
    intake = Intake(name, FieldNames(*COLUMNS))
    for line, text in lines:
        cells = _cells(text.strip())
        if not order:
            order, width = _order(name, line, cells), len(cells)
            continue
        if len(cells) != width:
            found = f"found {len(cells)}: {shown(text.strip())}"
            raise TraceError(name, line, f"expected {width} values, {found}")
        at = _time(name, line, cells[order[0]], first)
        first = first or at
        input_tokens = _tokens(name, line, COLUMNS[1], cells[order[1]])
        output_tokens = _tokens(name, line, COLUMNS[2], cells[order[2]])
        arrival_s = (at - first).total_seconds()
        intake.add(line, TraceRequest(arrival_s, input_tokens, output_tokens))
    return intake.trace(MOONCAKE_BLOCK_TOKENS)


def _cells(text: str) -> list[str]:
    """The values of a line; some programs put them in quotes."""
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader((text,)))
    except csv.Error:
        return [text]


def _order(name: str, line: int, header: Sequence[str]) -> tuple[int, ...]:
    """Where each of `COLUMNS` stands; others say nothing here."""
    found = [cell.strip() for cell in header]
    if any(found.count(column) != 1 for column in COLUMNS):
        problem = f"expected the columns {','.join(COLUMNS)}, found {shown(','.join(header))}"
        if "requests_per_s" in found:
            problem += "; a file of demand is for `headrace simulate scaling --rates`"
        raise TraceError(name, line, problem)
    return tuple(found.index(column) for column in COLUMNS)


def _time(name: str, line: int, text: str, first: datetime | None) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        problem = f"expected {COLUMNS[0]} like 2023-11-16 18:17:03.9799600, found {shown(text)}"
        raise TraceError(name, line, problem) from None
    if first is not None and (at.tzinfo is None) != (first.tzinfo is None):
        problem = f"expected {COLUMNS[0]} with a time zone on all lines or on none"
        raise TraceError(name, line, f"{problem}, found {shown(text)}")
    return at


def _tokens(name: str, line: int, column: str, text: str) -> int:
    stripped = text.strip()
    digits = stripped.removeprefix("-")
    # Only ASCII digits: int() would also take 1_000, and digits of other scripts.
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise TraceError(
            name, line, f"expected {column} to be a whole number of tokens, found {shown(text)}"
        )
    return int(stripped)
