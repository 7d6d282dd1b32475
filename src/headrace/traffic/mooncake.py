"""Mooncake's trace format: JSON lines with the ids of 512-token prefix blocks.

    {"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, …, 13]}

`timestamp` is in milliseconds. A line may name its `session` (or `session_id`). Mooncake publishes
timestamps in steps of 3 s (Qin et al., "Mooncake", FAST '25; repository kvcache-ai/Mooncake): all
requests of a step stand at its start, which as it stands would be a burst every 3 s. Where such a
step is found, its requests are spread evenly at random over it, in the order of the file.

`hash_ids` covers the whole prompt, its last id a block that is not full. Only full blocks are kept:
`hash_ids[: input_length // 512]`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from random import Random
from statistics import median

from headrace.traffic.intake import MAX_TOKENS, FieldNames, Intake
from headrace.traffic.json_record import JsonRecord, json_record
from headrace.traffic.trace import MOONCAKE_BLOCK_TOKENS, Trace, TraceError, TraceRequest

FIELDS = FieldNames("timestamp", "input_length", "output_length")
MAX_BLOCK_ID = (1 << 64) - 1

MIN_STEPS = 5
"""Distinct timestamps below which no step is looked for: too few to tell it from chance."""
MIN_REQUESTS_PER_STEP = 2.0
"""Mean requests at one timestamp: below, the trace's clock is fine enough as it stands."""
MIN_STEP_S = 0.1
"""Steps below are finer than what routing and queues can feel."""
STEP_TOLERANCE = 0.01
"""A gap this close to a multiple of the step, as a share of the step, is one (Mooncake: ±3 ms)."""
MIN_REGULAR_SHARE = 0.9
"""Share of the gaps that must be multiples of the step."""


def read_mooncake(name: str, lines: Iterable[tuple[int, str]], seed: int) -> Trace:
    """Read numbered lines in Mooncake's format.

    Raises:
        TraceError: a line is not as described above.
    """
    intake = Intake(name, FIELDS)
    for line, text in lines:
        record = json_record(name, line, text)
        if record.hash_ids is None or record.block_tokens is not None:
            problem = (
                "expected hash_ids and no block_tokens on every line, as on the first (Mooncake's"
                " format, timestamp in ms)"
            )
            raise TraceError(name, line, problem)
        request = TraceRequest(
            record.timestamp / 1000,
            record.input_length,
            record.output_length,
            full_blocks(name, line, record, MOONCAKE_BLOCK_TOKENS),
            record.session_name(),
        )
        intake.add(line, request)
    trace = intake.trace(MOONCAKE_BLOCK_TOKENS)
    step_s = timestamp_step_s(trace.requests)
    if step_s is None:
        return trace
    note = f"timestamps come in steps of {step_s:g} s; requests are spread within a step"
    spread = spread_within(trace.requests, step_s, Random(seed))
    return Trace(name, trace.block_tokens, spread, (*trace.notes, note))


def full_blocks(name: str, line: int, record: JsonRecord, block_tokens: int) -> tuple[int, ...]:
    """The ids of the record's full blocks.

    Raises:
        TraceError: there are more or fewer ids than the prompt has blocks (a last one that is not
            full may have an id or not), or an id no 64 bits hold.
    """
    if not 1 <= record.input_length <= MAX_TOKENS:
        return ()  # the intake says what is wrong with it
    ids = record.hash_ids or []
    full = record.input_length // block_tokens
    partial = record.input_length % block_tokens > 0
    if not full <= len(ids) <= full + partial:
        wanted = f"{full} or {full + 1}" if partial else str(full)
        problem = (
            f"expected {wanted} hash_ids ({record.input_length} input tokens in blocks of"
            f" {block_tokens}), found {len(ids)}; for blocks of another size give block_tokens on"
            " each line and timestamp in seconds"
        )
        raise TraceError(name, line, problem)
    blocks = tuple(ids[:full])
    if blocks and not (min(blocks) >= 0 and max(blocks) <= MAX_BLOCK_ID):
        problem = f"expected hash_ids from 0 to 2^64 - 1, found {min(blocks)} to {max(blocks)}"
        raise TraceError(name, line, problem)
    return blocks


def timestamp_step_s(requests: Sequence[TraceRequest]) -> float | None:
    """The step in which arrivals come, None where they come as they please."""
    stamps = sorted({request.arrival_s for request in requests})
    if len(stamps) < MIN_STEPS or len(requests) / len(stamps) < MIN_REQUESTS_PER_STEP:
        return None
    gaps = [later - earlier for earlier, later in pairwise(stamps)]
    step_s = median(gaps)
    if step_s < MIN_STEP_S:
        return None
    off = STEP_TOLERANCE * step_s
    regular = sum(
        gap > off and abs(gap - round(gap / step_s) * step_s) <= off * max(1, round(gap / step_s))
        for gap in gaps
    )
    # To the millisecond: half of Mooncake's gaps are a millisecond off, and their median with them.
    return round(step_s, 3) if regular >= MIN_REGULAR_SHARE * len(gaps) else None


def spread_within(
    requests: Sequence[TraceRequest], step_s: float, rng: Random
) -> list[TraceRequest]:
    """Each request at a random time of its step, in the same order; the first one at 0.

    The times of one step are uniform and sorted, as those of a Poisson process are, given their
    number.
    """
    arrivals = [request.arrival_s for request in requests]
    times_s: list[float] = []
    while len(times_s) < len(arrivals):
        start_s = arrivals[len(times_s)]
        behind = bisect_right(arrivals, start_s)
        until_s = start_s + step_s
        if behind < len(arrivals):
            until_s = min(until_s, arrivals[behind])
        width_s = until_s - start_s
        count = behind - len(times_s)
        times_s += sorted(start_s + width_s * rng.random() for _ in range(count))
    return [
        request._replace(arrival_s=time_s - times_s[0])
        for request, time_s in zip(requests, times_s, strict=True)
    ]
